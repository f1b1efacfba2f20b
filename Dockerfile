FROM python:3.13.14-slim-trixie AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY schemas/postgres schemas/postgres
COPY liveness liveness
# The dependencies as wheels too, so that the second stage needs no network and gets exactly these.
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[server,fast,otel]'

FROM python:3.13.14-slim-trixie
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index /wheels/*.whl \
    && useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin liveness
LABEL org.opencontainers.image.title="liveness" \
    org.opencontainers.image.description="Dead workers' work back in the queue at once" \
    org.opencontainers.image.licenses="Apache-2.0"
# Logs at once, and from outside of the container /readyz can be asked.
ENV PYTHONUNBUFFERED=1 \
    LIVENESS_HTTP_LISTEN=0.0.0.0:8470
EXPOSE 8470
# A number, so that an orchestrator can see that it is not root.
USER 10001
# Whether a start anew would help; not whether NATS and Postgres are there.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8470/livez', timeout=2)"]
ENTRYPOINT ["liveness"]
CMD ["serve"]

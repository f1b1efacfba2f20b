"""The HTTP listener: probes, metrics, the page. On the service's own event loop: a hung loop cannot look alive."""

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from liveness.connections import AT_ONCE, QUEUE, Connection
from liveness.door import Door
from liveness.errors import CannotStartError
from liveness.shown import printable


class _Server(uvicorn.Server):
    """uvicorn, leaving the signals to the service, and letting more wait for their turn than are accepted in one go."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets=sockets)
        for listening in sockets or ():
            listening.listen(QUEUE)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Http:
    """Answers. `troubles()` says why the service is not ready, `ills()` why it should be started anew, a line each.

    `notes()` are for whoever reads what `/readyz` says, and change nothing in it: what somebody has asked for.
    `metrics(accept)` returns them, and in which form, as the header Accept asks for it.
    """

    def __init__(
        self,
        listen: str,
        *,
        troubles: Callable[[], Sequence[str]],
        ills: Callable[[], Sequence[str]],
        notes: Callable[[], Sequence[str]] = tuple,
        metrics: Callable[[str], Awaitable[tuple[bytes, str]]],
        token: Callable[[], str] | None = None,
        routes: Sequence[Route] = (),
    ) -> None:
        """`listen` as host:port; `token` says what has to be shown (`Door`); `routes` are answered besides.

        Raises CannotStartError when that address cannot be had.
        """
        self._troubles = troubles
        self._ills = ills
        self._notes = notes
        self._metrics_in = metrics
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, int(port)))
        except (OSError, OverflowError) as error:
            self._socket.close()
            raise CannotStartError(f"http_listen = {listen} cannot be used: {error}") from error
        self.port: int = self._socket.getsockname()[1]
        application = Starlette(
            routes=[
                Route("/livez", self._livez),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
                *routes,
            ]
        )
        self._server = _Server(
            uvicorn.Config(
                Door(application, token),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=1,
                http=Connection,
                backlog=AT_ONCE,
                # What is upgraded would be neither counted nor asked for a token.
                ws="none",
            )
        )

    async def serve(self) -> None:
        """Answer until cancelled."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            # When it is cancelled, uvicorn shuts nothing down: its listener would stay with the loop, under a number
            # that the next socket gets.
            for listener in getattr(self._server, "servers", []):
                listener.close()
            # Nor the answers that go on for as long as somebody listens.
            for connection in list(self._server.server_state.connections):
                connection.transport.close()
            self._socket.close()

    async def _livez(self, _request: Request) -> PlainTextResponse:
        return _probed(self._ills(), "alive")

    async def _readyz(self, _request: Request) -> PlainTextResponse:
        return _probed(self._troubles(), "ready", self._notes())

    async def _metrics(self, request: Request) -> Response:
        text, content_type = await self._metrics_in(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})


def _probed(complaints: Sequence[str], well: str, notes: Sequence[str] = ()) -> PlainTextResponse:
    lines = [*(complaints or [well]), *notes]
    return PlainTextResponse("".join(f"{printable(line)}\n" for line in lines), status_code=503 if complaints else 200)

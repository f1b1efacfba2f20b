"""What the page answers. However many look at it, one picture is taken at a time, and kept for a moment."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib import resources
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from liveness.answers import StatusAnswer, StatusRequest
from liveness.assembly import Assembly
from liveness.errors import LivenessError
from liveness.explanations import told, with_owners
from liveness.facts import ID_LENGTH, Owner, WhyRequest
from liveness.page.rendering import OFFSET_MOST, ROWS, View, status_page, status_part, story_page, trouble_page
from liveness.settings import Settings
from liveness.snapshot import Snapshots, starting
from liveness.why import why

# Between two pictures of one view: what has changed shows within a second.
LIVE_SECONDS: Final = 0.5
# Between two pictures, of whatever view, the service rests for so many times what the last one took, but not for longer
# than that (seconds).
RESTS: Final = 2.0
REST_MOST: Final = 1.0
# How long a picture waits for Postgres; the page says so, and does without.
PATIENCE: Final = 1.0
# Streams that are served at once; those beyond are told to come again.
STREAMS_MOST: Final = 32
# How long one goes on (seconds): who looks begins another, for which the token is asked anew, and others may come
# between. One that is not taken is ended sooner (liveness.connections).
STREAM_SECONDS: Final = 60.0
# What a stream ends with. An event without data would be none.
AGAIN: Final = "event: again\ndata: .\n\n"
# Stories that may wait for their turn.
STORIES_WAITING: Final = 20
# Views that are kept for a moment.
VIEWS_KEPT: Final = 64
# Of the last ends, and of what was taken back last.
RECENT: Final = 15

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_FILES: Final[Mapping[str, str]] = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Page:
    """Answers. `parts()` is None until the service has begun; `troubles()` says what does not work, a line each."""

    def __init__(
        self, settings: Settings, parts: Callable[[], Assembly | None], troubles: Callable[[], Sequence[str]]
    ) -> None:
        self._settings = settings
        self._parts = parts
        self._troubles = troubles
        self._snapshots: Snapshots | None = None
        self._one_at_a_time = asyncio.Lock()
        self._one_reads = asyncio.Lock()
        self._not_before = 0.0
        self._kept: dict[View, tuple[float, StatusAnswer]] = {}
        self._streams = self._stories = 0
        files = resources.files("liveness.page") / "static"
        self._files = {name: (files / name).read_bytes() for name in _FILES}

    def routes(self) -> list[Route]:
        """Return what it answers."""
        return [
            Route("/", self._page),
            Route("/events", self._events),
            Route("/why", self._why),
            Route("/why/{id:path}", self._why),
            *(Route(f"/{name}", self._file) for name in _FILES),
        ]

    async def picture(self, view: View) -> StatusAnswer:
        """Return how it is, or was a moment ago."""
        async with self._one_at_a_time:
            at, answer = self._kept.pop(view, (0.0, None))
            # Half of the time between two of a stream: none of them gets the same twice.
            if answer is None or time.monotonic() - at > LIVE_SECONDS / 2:
                await asyncio.sleep(self._not_before - time.monotonic())
                began = time.monotonic()
                answer = await self._take(view)
                at = time.monotonic()
                self._not_before = at + min(RESTS * (at - began), REST_MOST)
            self._kept[view] = at, answer
            while len(self._kept) > VIEWS_KEPT:
                del self._kept[next(iter(self._kept))]
            return answer

    async def _take(self, view: View) -> StatusAnswer:
        parts, troubles = self._parts(), self._troubles()
        if parts is None:
            return starting(self._settings, troubles)
        if self._snapshots is None:
            self._snapshots = Snapshots(parts, PATIENCE)
        request = StatusRequest(name=view.name, offset=view.offset, limit=ROWS, recent=RECENT)
        return await self._snapshots.take(request, troubles)

    async def _page(self, request: Request) -> Response:
        view = _view(request)
        return _html(status_page(await self.picture(view), view))

    async def _events(self, request: Request) -> Response:
        if self._streams >= STREAMS_MOST:
            return Response(status_code=503, headers={"retry-after": "5"})
        return StreamingResponse(self._stream(_view(request)), media_type="text/event-stream")

    async def _stream(self, view: View) -> AsyncIterator[str]:
        self._streams += 1
        before, until = "", time.monotonic() + STREAM_SECONDS
        try:
            while time.monotonic() < until:
                part = status_part(await self.picture(view), view)
                # A line at least: so it is found out that nobody listens any more.
                yield ": the same\n\n" if part == before else _event(part)
                before = part
                await asyncio.sleep(LIVE_SECONDS)
            yield AGAIN
        finally:
            self._streams -= 1

    async def _why(self, request: Request) -> Response:
        asked = _asked(request)
        parts = self._parts()
        if asked is None:
            return _html(trouble_page("Which one?", "Give the id of a piece of work, or the name of a worker."), 400)
        if parts is None:
            return _html(trouble_page("Not yet", "; ".join(self._troubles()) or "the service is starting"), 503)
        if self._stories >= STORIES_WAITING:
            return _html(trouble_page("Too many ask", "Ask again in a moment."), 503)
        self._stories += 1
        try:
            async with self._one_reads:
                answer = told(with_owners(await why(parts, self._troubles(), asked), _of_another))
        except LivenessError as error:
            return _html(trouble_page("It cannot be told", str(error)), 503)
        finally:
            self._stories -= 1
        return _html(story_page(answer, leads=parts.leadership.leading), 200 if answer.known else 404)

    async def _file(self, request: Request) -> Response:
        # Not of its URL, which is made with the header Host as well: it says whatever its sender likes.
        name = request.scope["path"].removeprefix("/")
        # For as long as one looks: another version has another page.
        return Response(self._files[name], headers={"content-type": f"{_FILES[name]}; charset=utf-8"})


def _of_another(owner: Owner) -> Owner:
    if owner.standing is not None:
        return owner
    return msgspec.structs.replace(owner, unanswered="it is of another shard, whose service has to be asked")


def _asked(request: Request) -> WhyRequest | None:
    """Return which story is asked for, or None if that is no question."""
    work_id = request.path_params.get("id") or request.query_params.get("id") or None
    worker = request.query_params.get("worker") or None
    named = work_id or worker or ""
    # What no text can hold, nothing is called.
    if (work_id is None) == (worker is None) or len(named) > ID_LENGTH or not _is_text(named):
        return None
    return WhyRequest(work_id=work_id, worker=worker)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _view(request: Request) -> View:
    name, offset = request.query_params.get("name", "").strip(), request.query_params.get("offset", "")
    at = min(int(offset), OFFSET_MOST) if offset.isascii() and offset.isdigit() and len(offset) < len("1000000") else 0
    return View(name[:ID_LENGTH] if _is_text(name) else "", at)


def _event(part: str) -> str:
    return "".join(f"data: {line}\n" for line in part.splitlines()) + "\n"


def _html(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status_code=status, headers={"content-security-policy": POLICY})

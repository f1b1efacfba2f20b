"""Who is let in over HTTP, and what every answer tells a browser."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from liveness import door
from liveness.door import COOKIE, COOKIE_SECONDS, HEADERS, MOST_BYTES, Door
from liveness.errors import AccessError, SettingsError
from liveness.settings import Settings, load

TOKEN = "0123456789abcdef-t0ken"  # noqa: S105 - of this test
BEARER = {"authorization": f"Bearer {TOKEN}"}

# Seconds since 1970.
NOW = 1_800_000_000.5


class Answer:
    """What was answered, and whether the application was asked."""

    def __init__(self) -> None:
        self.asked = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def take(self, message: Message) -> None:
        """Take a message of ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        self.body += message.get("body", b"")


async def ask(
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes = b"",
    query: str = "",
    token: Callable[[], str] | None = lambda: TOKEN,
    now: float = NOW,
) -> Answer:
    """Ask a door behind which everything is answered."""
    answer = Answer()

    async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
        answer.asked = True
        own = [(b"cache-control", b"max-age=9")] if path == "/kept" else []
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": b"inside"})

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(), "scheme": "http",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "server": ("127.0.0.1", 8470), "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    await Door(application, token, lambda: now)(scope, receive, answer.take)
    return answer


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_an_orchestrator_shows_nothing(path: str) -> None:
    """Its probes are open."""
    assert (await ask(path)).asked


@pytest.mark.parametrize("path", ["/", "/metrics", "/livez/", "//livez", "/livez/../metrics", "/LIVEZ", "/nothing", ""])
async def test_all_else_is_for_who_shows_the_token(path: str) -> None:
    """What is not there as well, so that nobody learns what is."""
    refused, let_in = await ask(path), await ask(path, BEARER)

    assert (refused.asked, refused.status, refused.headers["www-authenticate"]) == (False, 401, "Bearer")
    assert let_in.asked


@pytest.mark.parametrize("host", ["h/livez?", "h/readyz#", "h:80/livez?x=", "/livez?", "h/login?", "[", "", "\xe9"])
async def test_what_is_asked_for_is_not_what_the_host_header_says(host: str) -> None:
    """The route is found by the path of the request line, and so is whether it is open."""
    for headers in ({"host": host}, {"host": host, "accept": "text/html"}):
        refused = await ask("/metrics", headers)
        assert (refused.asked, refused.status) == (False, 401)
    assert (await ask("/metrics", BEARER | {"host": host})).asked
    assert (await ask("/livez", {"host": host})).asked
    assert (await ask("/login", {"host": host}, method="POST", body=f"token={TOKEN}".encode())).status == 303


def test_no_route_and_no_right_is_told_by_the_host_header() -> None:
    """Whatever a Starlette makes of that header: nothing asks it for a URL."""
    package = Path(door.__file__).parent
    assert not [file.name for file in package.rglob("*.py") if "request.url" in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Bearer {TOKEN} x"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer \xe9"},
        {"cookie": f"{COOKIE}={TOKEN}"},
        {"cookie": f"{COOKIE}={hashlib.sha256(TOKEN.encode()).hexdigest()}"},
        {"cookie": f"{COOKIE}="},
        {"cookie": "\x7f;=;;"},
    ],
)
async def test_what_is_not_the_token_lets_nobody_in(headers: dict[str, str]) -> None:
    """The token is no cookie either."""
    answer = await ask("/", headers)

    assert (answer.asked, answer.status) == (False, 401)
    assert TOKEN.encode() not in answer.body


async def test_a_browser_logs_in_once_and_is_let_in_by_its_cookie() -> None:
    """It is shown a form, brought back to where it wanted to go, and out again when the token is another one."""
    html = {"accept": "text/html,*/*"}
    form = await ask("/workers/w1", html)
    assert (form.status, form.asked) == (401, False)
    assert b'action="/login?next=/workers/w1"' in form.body

    wrong = await ask("/login", method="POST", body=b"token=something")
    right = await ask("/login", method="POST", body=f"token={TOKEN}".encode(), query="next=/workers/w1")

    assert (wrong.status, "set-cookie" in wrong.headers) == (401, False)
    assert (right.status, right.headers["location"]) == (303, "/workers/w1")
    cookie, *attributes = right.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(attributes)
    assert TOKEN not in cookie
    assert (await ask("/events", {"cookie": f"other=1; {cookie}"})).asked
    assert not (await ask("/events", {"cookie": cookie}, token=lambda: TOKEN + "!")).asked


async def test_a_cookie_is_good_for_its_days_whatever_keeps_it() -> None:
    """The date is a part of what only who knows the token can make."""
    answer = await ask("/login", method="POST", body=f"token={TOKEN}".encode())
    cookie = answer.headers["set-cookie"].partition(";")[0].removeprefix(f"{COOKIE}=")
    until, _, made = cookie.partition(".")

    async def is_let_in(value: str, now: float) -> bool:
        return (await ask("/", {"cookie": f"{COOKIE}={value}"}, now=now)).asked

    assert await is_let_in(cookie, NOW + COOKIE_SECONDS - 1)
    assert not await is_let_in(cookie, NOW + COOKIE_SECONDS)
    for forged in (f"{int(until) + 9}.{made}", f"0{cookie}", made, f".{made}", until, f"\xb2.{made}", "9" * 5000):
        assert not await is_let_in(forged, NOW)


@pytest.mark.parametrize(
    "wanted", ["//elsewhere", "https://elsewhere/", "/%5Celsewhere", "elsewhere", "/%0d%0aset-cookie:x", "/login", ""]
)
async def test_a_login_leads_nowhere_else(wanted: str) -> None:
    """However the way back is written."""
    answer = await ask("/login", method="POST", body=f"token={TOKEN}".encode(), query=f"next={wanted}")

    assert answer.headers["location"] == "/"


async def test_the_form_shows_no_markup_of_others() -> None:
    """A path is hostile input."""
    answer = await ask('/"><script>alert(1)</script>', {"accept": "text/html"})

    assert b"<script" not in answer.body
    assert b'"><' not in answer.body.partition(b"next=")[2].partition(b'"')[0]


async def test_what_is_too_long_is_not_read() -> None:
    """Nobody fills our memory who has not logged in."""
    assert (await ask("/login", method="POST", body=b"token=" + b"x" * MOST_BYTES)).status == 413


async def test_a_token_that_cannot_be_read_lets_nobody_in(tmp_path: Path) -> None:
    """The file is read anew for each request, and what is in it counts at once."""
    file = tmp_path / "token"
    settings, _ = load({}, http_token_file=str(file))
    assert (await ask("/", BEARER, token=settings.http_password)).status == 503
    assert (await ask("/readyz", token=settings.http_password)).asked

    file.write_text(TOKEN + "\n", encoding="utf-8")
    assert (await ask("/", BEARER, token=settings.http_password)).asked

    file.write_text("short", encoding="utf-8")
    answer = await ask("/", {"authorization": "Bearer short"}, token=settings.http_password)
    assert (answer.status, b"short" in answer.body) == (503, False)


async def test_every_answer_has_the_headers_and_keeps_its_own() -> None:
    """Of those of the application, too; what it says itself counts."""
    for path, headers in (("/", {}), ("/", BEARER), ("/livez", {}), ("/login", {})):
        answer = await ask(path, headers)
        assert HEADERS.items() <= answer.headers.items()
    assert (await ask("/kept", BEARER)).headers["cache-control"] == "max-age=9"
    # Where nobody has to show anything, too.
    assert HEADERS.items() <= (await ask("/", token=None)).headers.items()


@pytest.mark.parametrize(
    ("listen", "token", "is_open"),
    [
        ("127.0.0.1:8470", "", False),
        ("[::1]:8470", "", False),
        ("localhost:8470", "", False),
        ("0.0.0.0:8470", "", True),
        (":8470", "", True),
        ("[::]:8470", "", True),
        ("10.1.2.3:8470", "", True),
        ("liveness.example:8470", "", True),
        ("0.0.0.0:8470", TOKEN, False),
    ],
)
def test_where_anybody_may_ask(listen: str, token: str, is_open: bool) -> None:  # noqa: FBT001 - a parameter
    """Others than this machine, who have to show nothing."""
    assert Settings(http_listen=listen, http_token=token).http_is_open is is_open


@pytest.mark.parametrize("token", ["short", "0123456789 abcdef", "0123456789abcd\xe9f", "0123456789abcde\n"])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token: str) -> None:
    """In one line, without it."""
    with pytest.raises(SettingsError) as refused:
        load({}, http_token=token)
    assert "openssl rand -hex 32" in str(refused.value)
    assert token not in str(refused.value)


def test_two_tokens_are_refused() -> None:
    """One of them would not count."""
    with pytest.raises((AccessError, ValueError), match="both given"):
        Settings(http_token=TOKEN, http_token_file="/nowhere")  # noqa: S106

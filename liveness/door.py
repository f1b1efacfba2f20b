"""Who may ask over HTTP, and what every answer tells browsers. Around the application, so that no route is forgotten.

Who shows the token (`Authorization: Bearer`) is let in; a browser, whose event streams can show no header, logs in once
and gets a cookie. It holds not the token, but until when it is good, and what only who knows the token can make of
that; another token makes it worthless.
"""

import hashlib
import hmac
import html
import time
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from liveness.errors import AccessError

log = structlog.get_logger("liveness.door")

# For the orchestrator, which has nothing to show, and hears nothing from them but what is wrong with us.
OPEN: Final = frozenset({"/livez", "/readyz"})
LOGIN: Final = "/login"
COOKIE: Final = "liveness"
# How long a cookie is good (seconds): a working week. A browser is told so, and who keeps it longer is not let in.
COOKIE_SECONDS: Final = 5 * 86_400
# In a cookie (seconds since 1970): what is longer is none of ours.
UNTIL_MOST: Final = 10**11
# Of what is sent to log in.
MOST_BYTES: Final = 4096
# On every answer that says nothing else itself: nothing is loaded, framed, guessed, kept or told to others.
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_FORM: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>liveness</title>'
    '<meta name="viewport" content="width=device-width"><h1>liveness</h1>{said}'
    '<form method="post" action="/login?next={next}"><label>Token <input name="token" type="password" required'
    ' autofocus autocomplete="current-password"></label> <button>Log in</button></form></html>'
)


class Door:
    """Lets in who may ask. `token()` says what is to be shown, or raises AccessError; None: anybody may.

    `now()` is the time of day, in seconds since 1970.
    """

    def __init__(
        self, application: ASGIApp, token: Callable[[], str] | None, now: Callable[[], float] = time.time
    ) -> None:
        self.application = application
        self._token = token
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope, receive)
        answer = await self._refuse(request)
        await (self.application if answer is None else answer)(scope, receive, with_headers)

    async def _refuse(self, request: Request) -> Response | None:
        """Return what is answered in place of what was asked for, or None."""
        # The one by which the application finds its route. A request's URL is made with the header Host as well, which
        # says whatever its sender likes.
        path = request.scope["path"]
        if self._token is None or path in OPEN:
            return None
        try:
            token = self._token()
        except AccessError as error:
            log.warning("token_unusable", cause=str(error))
            return PlainTextResponse("the token cannot be read: see the log\n", status_code=503)
        if path == LOGIN:
            return await _log_in(request, token, self._now())
        if _shown(request.headers, token, self._now()):
            return None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return _form(path, "", 401)
        return PlainTextResponse(
            "show the token: Authorization: Bearer ...\n", status_code=401, headers={"www-authenticate": "Bearer"}
        )


def _shown(headers: Headers, token: str, now: float) -> bool:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _same(bearer.strip(), token)
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    if cookie is None:
        return False
    until = cookie.value.partition(".")[0]
    if not until.isascii() or not until.isdigit() or len(until) > len(str(UNTIL_MOST)):
        return False
    return now < int(until) and _same(cookie.value, _cookie(token, int(until)))


def _same(shown: str, wanted: str) -> bool:
    # In a time that tells nothing, of their lengths either.
    return hmac.compare_digest(*(hashlib.sha256(one.encode(errors="replace")).digest() for one in (shown, wanted)))


def _cookie(token: str, until: int) -> str:
    said = f"cookie of the liveness page until {until}"
    return f"{until}.{hmac.new(token.encode(), said.encode(), hashlib.sha256).hexdigest()}"


async def _log_in(request: Request, token: str, now: float) -> Response:
    asked = request.query_params.get("next", "/")
    wanted = asked if _is_ours(asked) else "/"
    if request.method != "POST":
        return _form(wanted, "", 200)
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return PlainTextResponse("too long\n", status_code=413)
    except ClientDisconnect:
        # Nobody is there to be answered, and it is no fault of ours.
        return Response(status_code=400)
    given = parse_qs(body.decode(errors="replace")).get("token", [""])[0]
    if not _same(given.strip(), token):
        return _form(wanted, "<p>That is not the token.</p>", 401)
    answer = RedirectResponse(wanted, status_code=303)
    answer.set_cookie(
        COOKIE,
        _cookie(token, int(now) + COOKIE_SECONDS),
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.scope["scheme"] == "https",
    )
    return answer


def _is_ours(asked: str) -> bool:
    """Say whether it leads a browser to this host alone: what looks like a path may not ("//elsewhere")."""
    try:
        parts = urlsplit(asked)
    except ValueError:
        return False
    leads_elsewhere = parts.scheme or parts.netloc or "\\" in asked or parts.path == LOGIN
    return asked.isprintable() and asked.startswith("/") and not leads_elsewhere


def _form(wanted: str, said: str, status: int) -> Response:
    place = html.escape(quote(wanted))
    return HTMLResponse(_FORM.replace("{said}", said).replace("{next}", place), status_code=status)

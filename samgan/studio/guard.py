"""Who may ask the studio for anything: the checks that every request passes before any page sees it.

The server listens on this machine only, but every program and every web page on it can reach that address. So:

* the Host must be one of ours (a foreign name that leads here is DNS rebinding);
* a secret cookie must be there; only a link with a key gives it, and other sites' pages cannot send it (SameSite), but
  browsers send it to the servers at other ports of this host, too;
* whatever is not a GET must come from one of our own pages (Origin), and is refused in read-only mode;
* every answer forbids scripts and styles that are not files of ours, frames, and requests to anywhere else.
"""

import hmac
import secrets
from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samgan.errors import shown

ANSWERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",  # no-referrer would make browsers send "Origin: null"
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Headers of every answer."""
READING = ("GET", "HEAD")
HOST_SHOWN = 100
"""Characters of a wrong Host that the refusal repeats."""
ENTER = (
    "this browser has no key for the studio, perhaps because the studio was started again. "
    "Open the link that samgan studio printed when it last started: it has the key."
)
# The first step on our own origin: a browser that came from elsewhere would not send a strict cookie with a redirect.
WELCOME = (
    '<!DOCTYPE html><meta http-equiv="refresh" content="0; url=/"><title>samgan studio</title><a href="/">Enter</a>'
)


class Guard:
    """ASGI middleware that refuses what must not reach the pages.

    Args:
        app: The pages.
        hosts: What the header Host may be, such as "127.0.0.1:8017"; the first with its port.
        token: The key of the printed link.
        read_only: Whether to refuse everything but looking.
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str], token: str, read_only: bool = False) -> None:
        self.app, self.hosts, self.token, self.read_only = app, tuple(hosts), token, read_only
        self.once: set[str] = set()
        self.secret = secrets.token_urlsafe(32)
        port = self.hosts[0].rpartition(":")[2]
        self.cookie = f"samgan-studio-{port}"  # a browser sends cookies to all ports of a host

    def key_for_once(self) -> str:
        """A key that works once, for a link that other users of this machine may see in the list of processes."""
        key = secrets.token_urlsafe(32)
        self.once.add(key)
        return key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = self._answer(scope["method"], Headers(scope=scope), scope["query_string"]) or self.app

            async def send_safely(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    headers.update(ANSWERS)
                    headers.setdefault("cache-control", "no-store")  # pictures of patients, above all
                await send(message)

            await answer(scope, receive, send_safely)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _answer(self, method: str, headers: Headers, query: bytes) -> Response | None:
        """The refusal of a request, or the cookie for one with a key; None lets it through."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            found = shown(", ".join(hosts)[:HOST_SHOWN]) or "none"
            return _refused(
                f"expected Host {' or '.join(self.hosts)}, found {found}: open that address; through a tunnel, "
                "forward the same port"
            )
        keys = parse_qs(query.decode("latin-1")).get("key", []) if method == "GET" else []
        if keys:
            return self._enter(keys[0]) if len(keys) == 1 else _refused(ENTER)
        if not self._has_cookie(headers):
            return _refused(ENTER)
        if method in READING:
            return None
        if headers.getlist("origin") != [f"http://{hosts[0]}"]:
            return _refused("only pages of this server may change anything")
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return _refused("only pages of this server may change anything")
        if self.read_only:
            return _refused("the studio was started with --read-only")
        return None if method == "POST" else _refused(f"{method} is not used here")

    def _enter(self, key: str) -> Response:
        if key in self.once:
            self.once.remove(key)
        elif not _equal(key, self.token):
            return _refused(ENTER)
        answer = HTMLResponse(WELCOME)
        answer.set_cookie(self.cookie, self.secret, path="/", httponly=True, samesite="strict")
        return answer

    def _has_cookie(self, headers: Headers) -> bool:
        pairs = (pair.strip().partition("=") for line in headers.getlist("cookie") for pair in line.split(";"))
        return any(name == self.cookie and _equal(value, self.secret) for name, _, value in pairs)


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _refused(reason: str) -> Response:
    return PlainTextResponse(f"Refused: {reason}\n", 403)

"""The page at `/` and the JavaScript client: static files, read once."""

import hashlib
from importlib import resources
from typing import Any, Final

from litestar import Request, Response, get

from headrace.gateway.routes import guards

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FOLDER: Final = resources.files("headrace.gateway.dashboard")


class _Asset:
    def __init__(self, name: str, media_type: str) -> None:
        self.body = _FOLDER.joinpath(name).read_bytes()
        self.media_type = media_type
        self.etag = f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'

    def answer(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        headers = {"ETag": self.etag, "Cache-Control": "no-cache", "Content-Security-Policy": CSP}
        if request.headers.get("if-none-match") == self.etag:
            return Response(b"", status_code=304, headers=headers, media_type=self.media_type)
        return Response(self.body, headers=headers, media_type=self.media_type)


_PAGE: Final = _Asset("index.html", "text/html")
_STYLE: Final = _Asset("dashboard.css", "text/css")
_SCRIPT: Final = _Asset("dashboard.js", "text/javascript")
_CLIENT: Final = _Asset("headrace.js", "text/javascript")
_SUBSCRIPTION: Final = _Asset("subscription.js", "text/javascript")
_ICON: Final = _Asset("icon.svg", "image/svg+xml")


@get("/", opt=guards.OPEN, include_in_schema=False, sync_to_thread=False)
def page(request: Request[Any, Any, Any]) -> Response[bytes]:
    return _PAGE.answer(request)


@get("/dashboard.css", opt=guards.OPEN, include_in_schema=False, sync_to_thread=False)
def style(request: Request[Any, Any, Any]) -> Response[bytes]:
    return _STYLE.answer(request)


@get("/dashboard.js", opt=guards.OPEN, include_in_schema=False, sync_to_thread=False)
def script(request: Request[Any, Any, Any]) -> Response[bytes]:
    return _SCRIPT.answer(request)


@get("/client/headrace.js", opt=guards.OPEN, include_in_schema=False, sync_to_thread=False)
def client(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Get the JavaScript client, for pages to import. This file and `subscription.js` are links to `clients/js`."""
    return _CLIENT.answer(request)


@get("/client/subscription.js", opt=guards.OPEN, include_in_schema=False, sync_to_thread=False)
def subscription(request: Request[Any, Any, Any]) -> Response[bytes]:
    return _SUBSCRIPTION.answer(request)


@get("/icon.svg", opt=guards.OPEN, include_in_schema=False, sync_to_thread=False)
def icon(request: Request[Any, Any, Any]) -> Response[bytes]:
    return _ICON.answer(request)


HANDLERS: Final = (page, style, script, icon)
CLIENT_HANDLERS: Final = (client, subscription)

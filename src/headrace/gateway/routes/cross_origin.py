"""Pages of other sites: which may read our answers (CORS), and that none makes a browser act, or seems to be ours."""

from http import HTTPStatus
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from headrace.gateway.door.admission import Admission
from headrace.gateway.problems import Refused
from headrace.gateway.routes.asgi_errors import answer, refuse, values

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type, idempotency-key, last-event-id"),
    (b"access-control-max-age", b"600"),
)
_EXPOSED: Final = (b"access-control-expose-headers", b"retry-after")


class CrossOrigin:
    """Answers preflights, marks answers for pages that are allowed, and refuses what others' pages would change.

    Credentials travel in the `Authorization` header, never in cookies, so `access-control-allow-credentials` is not
    sent: a browser adds nothing of its own to what a page of another site asks for.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        origins, hosts = values(scope, b"origin"), values(scope, b"host")
        try:
            self._admission.check_host(hosts)
        except Refused as refused:
            await refuse(send, refused)
            return
        if not origins:
            await self._app(scope, receive, send)
            return
        try:
            self._admission.check_origin(origins, hosts)
        except Refused as refused:
            if scope["method"] in _READING:
                await self._app(scope, receive, send)  # without our leave the browser keeps the answer from the page
            else:
                await refuse(send, refused)
            return
        leave = ((b"access-control-allow-origin", origins[0].encode("latin-1")), _EXPOSED)
        if scope["method"] == "OPTIONS" and values(scope, b"access-control-request-method"):
            await answer(send, HTTPStatus.NO_CONTENT, b"", (*leave, *_PREFLIGHT))
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *leave]}
            await send(message)

        await self._app(scope, receive, send_marked)

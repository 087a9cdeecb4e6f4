"""Checks on every request before its handler is found: rate and CORS. Also how refusals are answered."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, TypeAlias

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from headrace.gateway.door.admission import Admission
from headrace.gateway.door.doorkeeper import Doorkeeper
from headrace.gateway.door.request_rates import Asker, RequestRates
from headrace.gateway.problems import PROBLEM_TYPE, Answer, Refused, answer_to, problem

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_log = structlog.get_logger("gateway")


def values(scope: Scope, name: bytes) -> list[str]:
    """Return all values of a header. `name` is in lower case."""
    return [value.decode("latin-1") for key, value in scope.get("headers", ()) if key == name]


def address_of(scope: Scope, admission: Admission) -> str:
    """Return the client's address, to which the limits per address apply."""
    client = scope["client"]
    return admission.address_of(client[0] if client else "", values(scope, b"x-forwarded-for"))


async def refuse(send: Send, refused: Refused) -> None:
    """Send the problem (RFC 9457) of a refused request as its answer."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in refused.headers.items()]
    await answer(send, refused.status, problem(refused.status, refused.detail), headers)


async def answer(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """Send a whole answer. `body` is a problem, or empty."""
    kind = [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", str(len(body)).encode())] if body else []
    await send({"type": "http.response.start", "status": status, "headers": [*kind, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def answer_to_defect(path: str, error: Exception) -> Answer:
    """Log an unexpected error. Return the answer 500, which reveals nothing about the error."""
    _log.error("request_failed", path=path, error=repr(error), exc_info=error)
    return answer_to(Refused(HTTPStatus.INTERNAL_SERVER_ERROR))


_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type, idempotency-key, last-event-id"),
    (b"access-control-max-age", b"600"),
)
_EXPOSED: Final = (b"access-control-expose-headers", b"retry-after")


class CrossOrigin:
    """Answers preflights, marks answers for allowed pages, and refuses changes requested by other pages.

    Credentials are in the `Authorization` header, never in cookies, so `access-control-allow-credentials` is not sent:
    a browser adds no credential of its own to the request of another site's page.
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
                await self._app(scope, receive, send)  # without the header, the browser hides the answer from the page
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


PROBES: Final = frozenset({"/health/live", "/health/ready"})
"""Paths that are never refused, so that a busy server is not taken for a dead one."""

_COUNTED: Final = "counted_for"


class Counted:
    """Refuses requests above the rate before anything else is done. Not even a credential is checked.

    Users who share an address use up its rate only with requests above their own rate.
    """

    def __init__(self, app: ASGIApp, keeper: Doorkeeper) -> None:
        self._app, self._keeper = app, keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["path"] not in PROBES:
            asker = Asker("address", address_of(scope, self._keeper.admission))
            try:
                self._keeper.rates.take(asker)
            except Refused as refused:
                await refuse(send, refused)
                return
            scope["state"][_COUNTED] = asker
        await self._app(scope, receive, send)


def count_for_user(scope: Scope, rates: RequestRates, user_id: str) -> None:
    """Count the request for this user instead of its address. Raises Refused 429 if the user's rate is exceeded."""
    asker = Asker("user", user_id)
    rates.take(asker)
    discount(scope, rates)
    scope["state"][_COUNTED] = asker


def discount(scope: Scope, rates: RequestRates) -> None:
    """Remove the request from the counted rate, because another limit applies to it."""
    asker = scope["state"].pop(_COUNTED, None)
    if asker is not None:
        rates.give_back(asker)

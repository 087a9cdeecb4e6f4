"""Guards of the routes. Every route needs a credential, unless it is marked open or authentication is off.

A handler calls `identity_of(request)` for the caller, `await admit(request, topic)` before it shows a topic, and
`acting_user` before it acts for a user. A handler for admins only has `guards=[admin_only]`.
"""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.types import Scope

from headrace.gateway.problems import Refused, retry_after, wrong
from headrace.gateway.routes.context import Context, context_of
from headrace.gateway.routes.middleware import count_for_user, values
from headrace.model import topics
from headrace.model.credentials import Credential
from headrace.model.errors import RequestError
from headrace.model.identity import OF_AN_OWNER, Identity
from headrace.model.topics import ORDER_PREFIX
from headrace.protocol.codes import ErrorCode
from headrace.protocol.credential_state import DENIED

OPEN: Final[Mapping[str, Any]] = MappingProxyType({"open": True})
"""`opt` of a handler that needs no credential."""

BY_TICKET: Final[Mapping[str, Any]] = MappingProxyType({"ticket": True})
"""`opt` of a handler that also accepts `?ticket=`, for clients that can't set headers (a browser's EventSource)."""

CHALLENGE: Final = 'Bearer realm="headrace"'

_Connection = ASGIConnection[Any, Any, Any, Any]


async def authenticated(connection: _Connection, handler: BaseRouteHandler) -> None:
    """Store the caller's identity for `identity_of`, or raise Refused 401. This is the guard of all routes."""
    if not handler.opt.get("open"):
        tickets = connection.query_params.getall("ticket", []) if handler.opt.get("ticket") else []
        await identify(connection.scope, context_of(connection), tickets)


def admin_only(connection: _Connection, _handler: BaseRouteHandler) -> None:
    """Guard that raises Refused 403 unless the caller is an admin."""
    if context_of(connection).parts.auth is not None:
        identity = identity_of(connection)
        if identity is None or not identity.admin:
            raise _forbidden("admins only")


async def metrics_reader(connection: _Connection, handler: BaseRouteHandler) -> None:
    """Guard of `/metrics`. Allows every caller, or admins only, depending on the settings."""
    auth = context_of(connection).parts.auth
    if auth is not None and not auth.settings.metrics_open:
        await identify(connection.scope, context_of(connection))
        admin_only(connection, handler)


def identity_of(connection: _Connection) -> Identity | None:
    """Return the caller's identity; None on open routes, and if authentication is off."""
    identity: Identity | None = connection.scope.get("user")
    return identity


def user_of(scope: Scope) -> str | None:
    """Return the user who makes the request; None if authentication is off."""
    identity: Identity | None = scope.get("user")
    return None if identity is None else identity.subject


def reader(connection: _Connection, anyone: Callable[[str], bool] = lambda _: True) -> Callable[[str], bool]:
    """Return a function that tests whether the caller may read a topic; `anyone` if authentication is off."""
    identity = identity_of(connection)
    return anyone if identity is None else identity.may_read


async def admit(connection: _Connection, topic: str) -> None:
    """Raise Refused 403 if the caller may not read the topic, and 503 while the owner of an order can't be read."""
    identity, owners = identity_of(connection), context_of(connection).sessions.order_topics
    if identity is None or identity.may_read(topic):
        return
    if owners is None or not topic.startswith(ORDER_PREFIX):
        raise _forbidden(DENIED.message)
    try:
        await owners.check(topic, identity.subject)
    except RequestError as failure:
        raise _not_now(failure) if failure.temporary else _forbidden(failure.message) from None


def acting_user(connection: _Connection, asked: str | None = None) -> str | None:
    """Return the user for whom the caller acts: the caller or, if authentication is off, the user in `asked`.

    Raises Refused 403 if the caller asked for another user.
    """
    identity = identity_of(connection)
    if identity is None:
        return asked
    if asked not in (None, identity.subject):
        raise _forbidden("you may act for yourself only")
    return identity.subject


async def identify(scope: Scope, context: Context, tickets: Sequence[str] = ()) -> None:
    """Store the caller's identity, from a bearer token or one of these tickets. Do nothing if authentication is off.

    Raises Refused 400, 401, 429 or 503.
    """
    auth = context.parts.auth
    if auth is None:
        return
    credential = _credential(scope, tickets)
    try:
        identity = await auth.identify(credential)
    except RequestError as failure:
        if failure.temporary:
            raise _not_now(failure) from None
        detail = "token expired" if failure.code == ErrorCode.TOKEN_EXPIRED else "bad credential"
        headers = {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'}
        raise Refused(HTTPStatus.UNAUTHORIZED, detail, headers) from None
    scope["user"] = identity
    count_for_user(scope, context.sessions.keeper.rates, identity.subject)


def _credential(scope: Scope, tickets: Sequence[str]) -> Credential:
    """Return the credential of the request (RFC 6750 §2.1). Raises Refused 401 for none, 400 for more than one."""
    given = values(scope, b"authorization")
    if len(given) + len(tickets) > 1:
        raise Refused(HTTPStatus.BAD_REQUEST, "more than one credential")
    if tickets:
        return Credential("ticket", tickets[0])
    scheme, _, token = (given[0] if given else "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused(HTTPStatus.UNAUTHORIZED, "a bearer token is needed", {"WWW-Authenticate": CHALLENGE})
    return Credential("token", token.strip())


def _not_now(failure: RequestError) -> Refused:
    wait_s = (failure.retry_after_ms or 1000) / 1000
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, failure.message, retry_after(wait_s))


def _forbidden(detail: str) -> Refused:
    return Refused(HTTPStatus.FORBIDDEN, detail, {"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope"'})


def check_topic(name: str) -> None:
    """Raise Refused 404 for a topic that can't exist."""
    try:
        topics.parse(name)
    except RequestError as error:
        raise Refused(
            HTTPStatus.NOT_FOUND, error.message, errors=[wrong("topic", "no topic can have this name", name)]
        ) from error


def is_listed(name: str) -> bool:
    """Return whether a topic is listed for any caller. Topics of users and of their orders are not."""
    return name.partition(":")[0] not in OF_AN_OWNER

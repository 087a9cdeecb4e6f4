"""Tickets for clients that can't put a token into a header or a subprotocol."""

from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, post

from headrace.gateway.problems import Refused, retry_after
from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.gateway.routes.schema_parts import problems
from headrace.model.errors import RequestError


class Ticket(msgspec.Struct, frozen=True):
    """Valid once, within `expires_in_s` seconds, on this server, with the token's user, permissions and expiry."""

    ticket: str
    expires_in_s: float


@post(
    "/api/ws/tickets",
    operation_id="issueTicket",
    summary="Get a ticket",
    tags=["server"],
    responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def issue(request: Request[Any, Any, Any]) -> Ticket:
    """Get a ticket for `/ws?ticket=…`, in exchange for the bearer token."""
    auth, identity = context_of(request).parts.auth, guards.identity_of(request)
    assert auth is not None
    assert identity is not None
    try:
        ticket = await auth.tickets.issue(identity)
    except RequestError as failure:
        headers = retry_after((failure.retry_after_ms or 1000) / 1000)
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, failure.message, headers) from None
    return Ticket(ticket, auth.settings.ticket_s)


HANDLERS: Final = (issue,)

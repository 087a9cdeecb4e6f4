"""A topic as server-sent events, for clients that can't use WebSocket."""

from http import HTTPStatus
from typing import Annotated, Any, Final, cast

from litestar import Request, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter
from litestar.types import ASGIApp, Receive, Scope, Send

from headrace.gateway.problems import Refused, retry_after, wrong
from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.gateway.routes.guards import check_topic
from headrace.gateway.routes.middleware import address_of, discount
from headrace.gateway.routes.schema_parts import EpochQuery, OffsetQuery, TopicPath, position, problems
from headrace.gateway.sessions import SessionContext
from headrace.gateway.transports.event_stream import TAKE_OVER, EventStream, TakeOver
from headrace.model.errors import RequestError
from headrace.model.events import Position
from headrace.model.identity import Identity
from headrace.protocol.codes import ErrorCode
from headrace.protocol.sse import position_of

MEDIA_TYPE: Final = "text/event-stream"
RETRY_AFTER_S: Final = 5
RETRY_FULL_S: Final = 60
"""Wait in seconds for a user who already has the maximum number of connections."""

_HEADERS: Final = (
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
    (b"connection", b"close"),
)


@get(
    "/api/topics/{topic:str}/sse",
    operation_id="followTopic",
    summary="Follow a topic",
    tags=["topics"],
    opt=guards.BY_TICKET,
    responses={
        200: ResponseSpec(
            str,
            description="Server-sent events; `data` is a frame of the wire protocol; `event` its type, `id` its place",
            media_type=MEDIA_TYPE,
            generate_examples=False,
        ),
        **problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
    },
)
async def follow_topic(
    request: Request[Any, Any, Any],
    topic: TopicPath,
    last_event_id: Annotated[
        str,
        HeaderParameter(name="Last-Event-ID", description="`epoch:offset`, the id of the last event; goes first"),
    ] = "",
    epoch: EpochQuery = None,
    offset: OffsetQuery = None,
) -> ASGIApp:
    """Follow every message of the topic from now on, or after a position, as server-sent events.

    The position is that of `Last-Event-ID`, else `epoch` and `offset`. The first event says whether it was recovered.
    """
    context = context_of(request)
    check_topic(topic)
    await guards.admit(request, topic)
    try:
        context.sessions.hub.check(topic)
    except RequestError as failure:
        status = HTTPStatus.SERVICE_UNAVAILABLE if failure.code == ErrorCode.LIMIT else HTTPStatus.BAD_REQUEST
        raise Refused(status, failure.message) from failure
    last = last_event_id.strip()
    since = _position(last) if last else position(epoch, offset)
    address = address_of(request.scope, context.sessions.keeper.admission)
    return _Answer(context.sessions, address, topic, since, guards.identity_of(request))


def _position(event_id: str) -> Position:
    found = position_of(event_id)
    if found is None:
        what = wrong("Last-Event-ID", "is no id of an event of ours: epoch:offset", event_id)
        raise Refused(HTTPStatus.BAD_REQUEST, "a parameter is wrong", errors=[what])
    return found


class _Answer:
    """Sends status and headers, then hands the socket to the event stream, which counts as a WebSocket connection."""

    def __init__(
        self, sessions: SessionContext, address: str, topic: str, since: Position | None, identity: Identity | None
    ) -> None:
        self._sessions, self._address, self._topic, self._since, self._identity = (
            sessions,
            address,
            topic,
            since,
            identity,
        )

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the answer. Nothing is awaited between the checks and the stream, so the limits hold."""
        admission = self._sessions.keeper.admission
        try:
            _check_room(self._sessions, self._identity)
            admission.enter(self._address)
        except Refused as refused:
            self._sessions.keeper.refused.labels(str(int(refused.status))).inc()
            raise
        discount(scope, self._sessions.keeper.rates)
        taken = False
        try:
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": _HEADERS})
            take_over = cast("TakeOver", (scope["extensions"] or {})[TAKE_OVER]["call"])
            stream = EventStream(self._sessions, self._topic, self._since, self._identity, self._address)
            taken = take_over(stream)
        finally:
            if not taken:
                admission.leave(self._address)
        if not taken:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _check_room(sessions: SessionContext, identity: Identity | None) -> None:
    if sessions.keeper.draining:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "shutting down", retry_after(RETRY_AFTER_S))
    if len(sessions.hub.clients) >= sessions.keeper.settings.connections_max:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", retry_after(RETRY_AFTER_S))
    if identity is not None and sessions.keeper.admission.has_enough(identity.subject):
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "too many connections of this user", retry_after(RETRY_FULL_S))


HANDLERS: Final = (follow_topic,)

"""The topics and their recent past over HTTP."""

from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get
from litestar.params import FromPath, FromQuery, QueryParameter

from headrace.gateway.problems import Refused
from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.gateway.routes.described import problems
from headrace.model import topics
from headrace.model.errors import RequestError, TransientError
from headrace.model.events import Position
from headrace.protocol.frames import U64_MAX, items_within

PAGE_BYTES: Final = 1_048_576


class TopicEntry(msgspec.Struct, frozen=True):
    """A topic's newest position, and how many connections of this server listen to it."""

    topic: str
    epoch: str
    offset: str
    subscribers: int


class TopicList(msgspec.Struct, frozen=True):
    """`total` counts all that match the prefix; `topics` is the first `limit` of them by name."""

    total: int
    topics: list[TopicEntry]


class HistoryPage(msgspec.Struct, frozen=True):
    """`items` are frames as the WebSocket sends them; `epoch` and `offset` are the topic's newest position.

    A page may be shorter than `limit`: go on after its last item until that is at `offset`.
    """

    topic: str
    epoch: str
    offset: str
    items: list[msgspec.Raw]


@get("/api/topics", sync_to_thread=False, responses=problems(HTTPStatus.BAD_REQUEST))
def list_topics(
    request: Request[Any, Any, Any],
    prefix: Annotated[str, QueryParameter(max_length=128)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> TopicList:
    """Topics that have messages here and that you may read, by name."""
    context = context_of(request)
    subscribers = context.hub.topics()
    may_read = guards.reader(request)
    known = context.bus.topics().items()
    found = sorted((name, top) for name, top in known if name.startswith(prefix) and may_read(name))
    entries = [TopicEntry(name, top.epoch, str(top.offset), subscribers.get(name, 0)) for name, top in found[:limit]]
    return TopicList(len(found), entries)


@get(
    "/api/topics/{topic:str}/history",
    responses=problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def read_history(
    request: Request[Any, Any, Any],
    topic: FromPath[str],
    epoch: Annotated[str | None, QueryParameter(min_length=1, max_length=64)] = None,
    offset: Annotated[str | None, QueryParameter(pattern=r"\A[0-9]{1,20}\Z")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
    reverse: FromQuery[bool] = False,
) -> HistoryPage:
    """Messages after `epoch` and `offset` (both or neither; neither: all that is kept), oldest first.

    `reverse`: those before it, newest first. 410 when the position can't be recovered.
    """
    context = context_of(request)
    try:
        topics.parse(topic)
    except RequestError as error:
        raise Refused(HTTPStatus.NOT_FOUND, error.message) from error
    guards.admit(request, topic)
    if (epoch is None) != (offset is None):
        raise Refused(HTTPStatus.BAD_REQUEST, "epoch and offset go together")
    since = None if epoch is None or offset is None else Position(epoch, int(offset))
    if since is not None and since.offset > U64_MAX:
        raise Refused(HTTPStatus.BAD_REQUEST, "offset is beyond 64 bits")
    try:
        page = await context.bus.history(topic, since, limit, reverse=reverse)
    except TransientError as error:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily unavailable") from error
    if not page.complete:
        raise Refused(HTTPStatus.GONE, "unrecoverable position")
    items = items_within(page.messages, context.framer, PAGE_BYTES)
    return HistoryPage(topic, page.top.epoch, str(page.top.offset), [msgspec.Raw(item) for item in items])


HANDLERS: Final = (list_topics, read_history)

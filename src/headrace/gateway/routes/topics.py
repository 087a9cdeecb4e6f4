"""HTTP routes for topics and their recent messages."""

import heapq
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get
from litestar.params import QueryParameter

from headrace.bus import History
from headrace.gateway.problems import Refused
from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.gateway.routes.guards import check_topic, is_listed
from headrace.gateway.routes.schema_parts import EpochQuery, OffsetQuery, Place, TopicPath, position, problems
from headrace.model.errors import TransientError
from headrace.model.topics import SERVER_PREFIX, TOPIC_LENGTH_MAX, USER_PREFIX
from headrace.protocol.frames import items_within

PAGE_BYTES: Final = 1_048_576
_OF_NO_LIST: Final = (USER_PREFIX, SERVER_PREFIX)
"""Prefixes of topics that nobody can ask for."""

_Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="How many at most; a page may have fewer")]


class TopicEntry(msgspec.Struct, frozen=True):
    """A topic's newest position, and the number of connections of this server that subscribe to it."""

    topic: str
    epoch: str
    offset: str
    subscribers: int


class TopicList(msgspec.Struct, frozen=True):
    """A page of topics.

    `total` is the number of all topics with the prefix. Pass `next` as `after` for the next page; null: the last page.
    """

    total: int
    topics: list[TopicEntry]
    next: str | None


class HistoryPage(msgspec.Struct, frozen=True):
    """`items` are frames as the WebSocket sends them, without a gap; `epoch` and `offset` are the newest position.

    Pass the `epoch` and `offset` of `next` for the next page. Null: there are no more messages now.
    """

    topic: str
    epoch: str
    offset: str
    items: list[msgspec.Raw]
    next: Place | None


@get(
    "/api/topics",
    operation_id="listTopics",
    summary="List topics",
    tags=["topics"],
    sync_to_thread=False,
    responses=problems(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE),
)
def list_topics(
    request: Request[Any, Any, Any],
    prefix: Annotated[
        str, QueryParameter(max_length=TOPIC_LENGTH_MAX, description="What names begin with, such as `trades:`")
    ] = "",
    after: Annotated[
        str, QueryParameter(max_length=TOPIC_LENGTH_MAX, description="Only names that come after this one")
    ] = "",
    limit: _Limit = 100,
) -> TopicList:
    """List topics that have messages here and that you may read, by name; those of users and servers are not listed."""
    context = context_of(request)
    try:
        tops = context.parts.bus.topics()
    except TransientError as error:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily unavailable") from error
    listed = guards.reader(request, anyone=is_listed)
    found = [name for name in tops if name.startswith(prefix) and listed(name) and not name.startswith(_OF_NO_LIST)]
    page = heapq.nsmallest(limit + 1, [name for name in found if name > after] if after else found)
    subscribers = context.sessions.hub.topics()
    entries = [
        TopicEntry(name, tops[name].epoch, str(tops[name].offset), subscribers.get(name, 0)) for name in page[:limit]
    ]
    return TopicList(len(found), entries, entries[-1].topic if len(page) > limit else None)


@get(
    "/api/topics/{topic:str}/history",
    operation_id="readHistory",
    summary="Read a topic's past",
    tags=["topics"],
    responses=problems(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.SERVICE_UNAVAILABLE),
)
async def read_history(
    request: Request[Any, Any, Any],
    topic: TopicPath,
    epoch: EpochQuery = None,
    offset: OffsetQuery = None,
    limit: _Limit = 100,
    reverse: Annotated[bool, QueryParameter(description="What came before, newest first")] = False,
) -> HistoryPage:
    """Read messages after `epoch` and `offset`, oldest first; without them, from the oldest that is kept.

    `reverse`: messages before the position, newest first; without a position, from the newest. A page is complete or is
    refused: 410 says that the messages next to the position are gone, or that the topic's log started again.
    """
    context = context_of(request)
    check_topic(topic)
    await guards.admit(request, topic)
    since = position(epoch, offset)
    try:
        page = await context.parts.bus.history(topic, since, limit, reverse=reverse)
    except TransientError as error:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily unavailable") from error
    if not page.complete:
        asked = since or page.top
        raise Refused(
            HTTPStatus.GONE, "unrecoverable position", topic=topic, given=Place.of(asked), newest=Place.of(page.top)
        )
    items = items_within(page.messages, context.framer, PAGE_BYTES)
    following = _next(page, len(items), limit, reverse=reverse)
    return HistoryPage(topic, page.top.epoch, str(page.top.offset), [msgspec.Raw(item) for item in items], following)


def _next(page: History, shown: int, limit: int, *, reverse: bool) -> Place | None:
    """Return the position of the last message shown, if more messages may follow."""
    if not shown:
        return None
    last = page.messages[shown - 1]
    if reverse:
        more = last.offset > 1 and (shown < len(page.messages) or shown == limit)
    else:
        more = last.offset < page.top.offset
    return Place(last.epoch, str(last.offset)) if more else None


HANDLERS: Final = (list_topics, read_history)

"""The values of a subscription: everything that happened on a topic, and reports of missing messages."""

from typing import Any, Literal, TypeAlias

import msgspec

from headrace.model.events import Position


class Chain(msgspec.Struct, frozen=True, gc=False):
    """Place of an event on the chain, and its commitment when it was sent."""

    slot: int | None = None
    signature: str | None = None
    ix: tuple[int, ...] = ()
    commitment: str | None = None
    tx_version: int | str | None = None
    source: str | None = None
    truncated: bool = False
    via: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event. An event that comes again with the same `event_id` replaces the first.

    `data` is described in docs/reference/topics.md; integers above 32 bits are text. If `ack`, the server keeps the
    message until `Client.ack`. `frame` is the received JSON text, in all these classes.
    """

    topic: str
    position: Position
    event_id: str
    data: Any
    chain: Chain | None = None
    ack: bool = False
    frame: str = ""


class Promote(msgspec.Struct, frozen=True, kw_only=True):
    """All events of `slot` on this topic now have this `commitment`."""

    topic: str
    position: Position
    slot: int
    commitment: str
    frame: str = ""


class Retract(msgspec.Struct, frozen=True, kw_only=True):
    """Retraction of events that did not happen after all. Undo their effects."""

    topic: str
    position: Position
    event_ids: tuple[str, ...]
    reason: str
    frame: str = ""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Slots (both ends included) in which the server may have missed updates.

    A later Gap with the same `gap_id` reports its end.
    """

    topic: str
    position: Position
    gap_id: str
    from_slot: int
    to_slot: int
    state: Literal["open", "backfilled", "unrecoverable"]
    reason: str = ""
    frame: str = ""


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """`dropped` messages with offsets from `from_offset` to `to_offset` will not come."""

    topic: str
    position: Position
    from_offset: int
    to_offset: int
    dropped: int
    frame: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the topic's state, as events.

    The `first` page replaces the state that you have. After the `last` page, live messages follow. If not `complete`,
    the server has not seen the beginning, and the state may have more items.
    """

    topic: str
    position: Position
    as_of_slot: int | None
    items: tuple[Event, ...]
    complete: bool
    first: bool
    last: bool
    frame: str = ""


class NotRecovered(msgspec.Struct, frozen=True, kw_only=True):
    """Messages after `before` are gone: discard the state that you keep for this topic. It continues after `now`.

    `now` is None if a snapshot follows.
    """

    topic: str
    before: Position
    now: Position | None


Value: TypeAlias = Event | Promote | Retract | Gap | Lag | Snapshot | NotRecovered
"""The values of `async for value in client.subscribe(…)`."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a topic's log.

    `top` is the log's newest position. There are more pages until an item has this position.
    """

    topic: str
    top: Position
    items: tuple[Event | Promote | Retract | Gap, ...]


class OrderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an order command. `order` has the fields of `GET /api/orders/{id}`, with amounts as text.

    `replayed`: an earlier request with this key placed the order. `requested`: the cancel is only requested, because
    the order's transaction may still land.
    """

    order: dict[str, Any]
    replayed: bool = False
    requested: bool = False


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The newest slots that the server knows, as of a heartbeat. None: unknown.

    In a quiet market `processed` keeps growing. With a dead feed `processed` stops, or `upstream_lag_ms` grows.
    """

    at_ms: int
    processed: int | None
    confirmed: int | None
    upstream_lag_ms: int | None


class Refused(Exception):  # noqa: N818  (the server's answer)
    """A final refusal by the server. `code` is its error code, close code or HTTP status. A retry would not help."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{message} ({code})")


class OrderRefused(Refused):
    """The server refused an order command. `reason` is a constant for programs; `errors` names the wrong fields.

    `fate` says what became of the order: `not_executed`, `executed` or `unknown`. After `unknown`, repeat the command
    with the same `key`. If `retryable`, the same command may succeed later, after `retry_after_ms` if that is set.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        key: str | None,
        reason: str = "",
        fate: str = "unknown",
        retryable: bool = False,
        retry_after_ms: int | None = None,
        errors: dict[str, str] | None = None,
    ) -> None:
        super().__init__(code, message)
        self.key, self.reason, self.fate = key, reason, fate
        self.retryable, self.retry_after_ms, self.errors = retryable, retry_after_ms, errors or {}

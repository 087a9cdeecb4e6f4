"""Shapes of all frames and commands, from which schema, SDKs and docs are generated or checked. Pure.

Frames are built in `frames`, which is faster. Shapes are exact: `frames` must not use a field that is missing in its
shape.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from headrace.model.orders import Fate
from headrace.model.updates import Commitment
from headrace.protocol import frames
from headrace.protocol.codes import CloseCode, ErrorCode

U64: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,20}$", description="an integer of up to 64 bits")]
Id: TypeAlias = str | int | msgspec.UnsetType


class _Frame(msgspec.Struct, tag_field="type", forbid_unknown_fields=True):
    """A frame; the tag of the class is the `type` of the frame."""


class _Data(msgspec.Struct, forbid_unknown_fields=True):
    """The `data` of a frame."""


class ConnectionLimits(_Data):
    """Limits of the connection: topics at the same time, bytes of a message, commands a second."""

    topics: int
    frame: int
    cmd_per_s: int


class WelcomeData(_Data):
    connection_id: str
    user_id: str | None
    server_id: str
    ping_s: float
    pong_s: float
    limits: ConnectionLimits


class Welcome(_Frame, tag="welcome"):
    """The first frame of every connection."""

    data: WelcomeData


class AuthenticatedData(_Data):
    """`expires_in_s` includes the tolerance for clock differences."""

    user_id: str
    expires_in_s: int


class Authenticated(_Frame, tag="authenticated"):
    """The answer to `auth`. After a first credential it follows the welcome."""

    data: AuthenticatedData
    id: Id = msgspec.UNSET


class AuthExpiringData(_Data):
    in_s: int


class AuthExpiring(_Frame, tag="auth_expiring"):
    """The credential expires in `in_s` seconds: send a newer one."""

    data: AuthExpiringData


class SubscribedData(_Data):
    """`epoch` and `offset` are the topic's newest position.

    If `recovered` is set, the missed messages up to that position follow; `replayed` is their number.
    """

    epoch: str
    offset: U64
    was_recovering: bool
    recovered: bool
    replayed: int


class Subscribed(_Frame, tag="subscribed"):
    """The answer to `subscribe`; replayed messages follow, then live messages."""

    topic: str
    data: SubscribedData
    id: Id = msgspec.UNSET


class Unsubscribed(_Frame, tag="unsubscribed"):
    """The answer to `unsubscribe`: no more messages of this topic follow."""

    topic: str
    id: Id = msgspec.UNSET


class WrongField(_Data):
    """One wrong field of an order."""

    name: str
    message: str


class ErrorData(_Data):
    """If `temporary`, the same command may succeed later.

    The fields from `status` on describe an order's error, as over HTTP.
    """

    code: ErrorCode
    message: str
    temporary: bool
    retry_after_ms: int | None
    status: int | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
    retryable: bool | msgspec.UnsetType = msgspec.UNSET
    fate: Fate | msgspec.UnsetType = msgspec.UNSET
    errors: list[WrongField] | msgspec.UnsetType = msgspec.UNSET


class Error(_Frame, tag="error"):
    """A command failed; the connection stays open. `topic` names the command if there is no `id`."""

    data: ErrorData
    id: Id = msgspec.UNSET
    topic: str | msgspec.UnsetType = msgspec.UNSET


class Chain(_Data):
    """Position of an event on the chain, its commitment and its source. `ix` is the path of its instruction."""

    slot: U64
    signature: str | None
    ix: list[int]
    commitment: Commitment
    tx_version: int | Literal["legacy"] | None
    source: str
    truncated: bool
    via: Literal["cpi", "log"] | None


class _InLog(_Frame):
    """A message with its position in the log of its topic."""

    topic: str
    epoch: str
    offset: U64


class Event(_InLog, tag="event"):
    """An event of the kind `data.type`. An event that comes again with the same `event_id` replaces the first.

    Events from the chain have `chain`. An event with `ack` comes again until the user acknowledges it.
    """

    event_id: str
    data: dict[str, Any]
    chain: Chain | msgspec.UnsetType = msgspec.UNSET
    ack: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class PromoteData(_Data):
    slot: U64
    commitment: Commitment


class Promote(_InLog, tag="promote"):
    """All events of this slot on this topic now have this commitment."""

    data: PromoteData


class RetractData(_Data):
    event_ids: list[str]
    reason: Literal["dead_slot", "fork", "equivocation", "not_in_block"]


class Retract(_InLog, tag="retract"):
    """These events did not happen after all."""

    data: RetractData


class GapData(_Data):
    gap_id: str
    from_slot: U64
    to_slot: U64
    state: Literal["open", "backfilled", "unrecoverable"]
    reason: str


class Gap(_InLog, tag="gap"):
    """Slots that the node may have missed.

    A gap with the same `gap_id` comes again when its `state` changes or it grows.
    """

    data: GapData


Logged: TypeAlias = Event | Promote | Retract | Gap


class HistoryPage(_Data):
    """`epoch` and `offset` are the topic's newest position; `items` are complete frames."""

    epoch: str
    offset: U64
    items: list[Logged]


class History(_Frame, tag="history"):
    """The answer to `history`."""

    topic: str
    data: HistoryPage
    id: Id = msgspec.UNSET


class SnapshotPage(_Data):
    """`items` are complete frames; the last one of a key is its state. `next` is the number of the next page."""

    as_of_slot: U64 | None
    items: list[Event]
    complete: bool
    next: U64 | None


class Snapshot(_InLog, tag="snapshot"):
    """A page of the state of a topic at `offset`. After the last page, the messages published since then follow."""

    data: SnapshotPage


class AcknowledgedData(_Data):
    """Messages up to `offset` will not come again."""

    offset: U64


class Acknowledged(_Frame, tag="acknowledged"):
    """The answer to an `ack` that has an `id`."""

    topic: str
    data: AcknowledgedData
    id: Id = msgspec.UNSET


class LagData(_Data):
    """`dropped` messages between these offsets, both included, will not come."""

    epoch: str
    from_offset: U64
    to_offset: U64
    dropped: int


class Lag(_Frame, tag="lag"):
    """Messages that a client lost by reading too slowly."""

    topic: str
    data: LagData


class HeadData(_Data):
    """The newest slots that the server knows; null if unknown."""

    processed: U64 | None
    confirmed: U64 | None


class PingData(_Data):
    """`ts` is the server's time in ms. `tops` has the newest offset of each topic of the connection."""

    ts: int
    head: HeadData
    upstream_lag_ms: int | None
    tops: dict[str, U64]


class Ping(_Frame, tag="ping"):
    """A heartbeat: answer it with `pong`, or with any other frame."""

    data: PingData


class CloseData(_Data):
    """`reconnect`: whether a new connection may succeed."""

    code: CloseCode
    reason: str
    reconnect: bool


class Close(_Frame, tag="close"):
    """The last event of a stream over HTTP, with the content of a WebSocket's close frame."""

    data: CloseData


SENT: TypeAlias = (
    Welcome
    | Authenticated
    | AuthExpiring
    | Subscribed
    | Unsubscribed
    | Error
    | Logged
    | History
    | Lag
    | Snapshot
    | Acknowledged
    | Ping
)
"""Every frame that a server sends on a WebSocket."""


class Command(NamedTuple):
    """A command of a client: its `data` (None: it has none), and the frames that answer it."""

    summary: str
    data: type | None
    answers: Sequence[type] = ()


COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "subscribe": Command("Begin to get a topic", frames.SubscribeData, (Subscribed, Snapshot, Error)),
        "unsubscribe": Command("Get no more of a topic", frames.UnsubscribeData, (Unsubscribed, Error)),
        "history": Command("Read a page of a topic's past", frames.HistoryData, (History, Error)),
        "pong": Command("Answer a ping", None),
        "auth": Command("Show who you are, or a newer token", frames.AuthData, (Authenticated, Error)),
        "ack": Command("Say that what a user was sent has arrived", frames.AckData, (Acknowledged, Error)),
    }
)
"""Every command of a session, except the commands on orders."""

"""Facts that the update flow finds on the chain, as typed values, and the rule by which they become final."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.model.events import DecodedEvent, EventBody, NamedInstruction
from headrace.model.trades import Trade
from headrace.model.transfers import TokenTransfer
from headrace.model.updates import (
    AccountUpdate,
    Commitment,
    GapState,
    LogsUpdate,
    SlotStatus,
    TransactionUpdate,
    TxVersion,
)

DeadReason: TypeAlias = Literal["dead_slot", "fork", "equivocation"]


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Place where the facts of one update were seen, and how certain they are.

    - `signature`: None for an account whose source does not name the transaction.
    - `version`: None if only log lines were delivered.
    - `unproven`: it is not yet proven that the slot's block contains the transaction. In that case `commitment` is
      `processed`, whatever the slot's commitment.
    """

    slot: int
    signature: str | None
    source: str
    feed: str
    commitment: Commitment
    unproven: bool = False
    version: TxVersion | None = None

    @property
    def certain(self) -> bool:
        """Return whether the facts arrived at commitment `confirmed` or `finalized`. Such facts are never retracted."""
        return self.commitment != "processed"


class MintFacts(msgspec.Struct, frozen=True, gc=False):
    """Decimals of a mint, and its supply in base units; each is None while unknown."""

    decimals: int | None = None
    supply: int | None = None


class EventSeen(msgspec.Struct, frozen=True, gc=False):
    """An event of a program.

    `event.data` holds only the fields that the program's meaning reads; `body` holds all fields.
    """

    event_id: str
    origin: Origin
    event: DecodedEvent
    body: EventBody


class Traded(msgspec.Struct, frozen=True, gc=False):
    """A trade, and the event that records it. The id of the trade is the event's id.

    `time_s` is the chain's own time, in Unix seconds. `base` and `quote` are the known facts about the two mints. A
    trade whose mints are unknown is reported a second time, with `again` set, once its mints are known.
    """

    seen: EventSeen
    trade: Trade
    time_s: int
    base: MintFacts
    quote: MintFacts
    again: bool = False


class TokenCreated(msgspec.Struct, frozen=True, gc=False):
    """A new token, and the event that records its creation. The id of the fact is the event's id."""

    seen: EventSeen
    mint: str
    name: str
    symbol: str
    creator: str


class TransactionSeen(msgspec.Struct, frozen=True, gc=False):
    """A transaction as a whole, for the programs of `program_ids`.

    The same transaction is reported again if a further feed delivers it for a further program. `instructions` is empty
    if only log lines were delivered. `body` is the body of the message for a program with an IDL. `truncated` is set if
    a node cut off the log lines.
    """

    event_id: str
    origin: Origin
    update: LogsUpdate | TransactionUpdate
    events: Sequence[DecodedEvent]
    instructions: Sequence[NamedInstruction]
    body: bytes
    program_ids: Sequence[str]
    truncated: bool


class Transferred(msgspec.Struct, frozen=True, gc=False):
    """A transfer of tokens, found in the instructions of a whole transaction. Only if transfers are switched on."""

    event_id: str
    origin: Origin
    transfer: TokenTransfer


class AccountChanged(msgspec.Struct, frozen=True, gc=False):
    """New content of an account. `body` is the body of its message.

    `program` is the owner's name, or its id if there is no IDL. `name` is the layout's name, or None if there is no
    layout. `values` are the fields that the account's meaning reads.
    """

    event_id: str
    origin: Origin
    update: AccountUpdate
    program: str
    name: str | None
    body: bytes
    values: Mapping[str, Any]


class SlotChanged(msgspec.Struct, frozen=True, gc=False):
    """A slot reached a status. `parent` is None if no source named the parent."""

    slot: int
    status: SlotStatus
    parent: int | None
    source: str


class Gap(NamedTuple):
    """Range of slots, both ends included, in which an update may be missing."""

    gap_id: str
    from_slot: int
    to_slot: int
    state: GapState
    reason: str


class GapDeclared(msgspec.Struct, frozen=True, gc=False):
    """A gap of a feed. With `program`, only meanings are missing: the trades and tokens of that program's events."""

    gap: Gap
    feed: str
    program: str | None = None


class Restarted(msgspec.Struct, frozen=True, gc=False):
    """A recording starts again. Forget all earlier facts: the same facts follow again, with the same ids."""


Fact: TypeAlias = (
    EventSeen | Traded | TokenCreated | TransactionSeen | Transferred | AccountChanged | SlotChanged | GapDeclared
)


class Confirmed(msgspec.Struct, frozen=True):
    """The cluster voted for the slot. All of its facts are confirmed, except unproven facts."""

    slot: int


class Finalized(msgspec.Struct, frozen=True):
    """The slot is rooted. All of its facts are final, except unproven facts."""

    slot: int


class Dead(msgspec.Struct, frozen=True):
    """The slot is not part of the chain, and none of its facts happened.

    - `dead_slot`: the node gave the slot up.
    - `fork`: the confirmed chain skips the slot.
    - `equivocation`: the node discarded its version of the slot and builds the slot again, so another version may
      follow.
    """

    slot: int
    reason: DeadReason


class Proof(msgspec.Struct, frozen=True):
    """Answer about unproven signatures of a slot.

    - `landed`: in the slot's block.
    - `absent`: not in the block, so their facts did not happen.
    - `unknown`: no node answered in time.
    """

    slot: int
    landed: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


Verdict: TypeAlias = Confirmed | Finalized | Dead
"""Decision about a slot."""

Decision: TypeAlias = Verdict | Proof
DECISIONS: Final = (Confirmed, Finalized, Dead, Proof)
"""The classes of `Decision` as a tuple, built once.

Python would rebuild a union that is written inside a check at each check.
"""

News: TypeAlias = Fact | Decision | Restarted


class FactConsumer(Protocol):
    """Receiver of the facts that the update flow finds.

    Consumers make messages to clients, market numbers and order triggers from the facts.

    Order: facts and decisions are delivered in the order in which they were found. A decision follows all facts that it
    concerns. If several slots are decided together, lower slots come first.

    Delivery: each fact is delivered once within one process, from the start of the process on. Nothing is kept for a
    consumer that attaches later. One call delivers everything that followed from one update, after the bus has received
    the messages made of that update. The same event is delivered again with its id in three cases: its slot died and
    was built again, the mints of its trade became known (`again`), or a recording started again (`Restarted`). A
    transaction is delivered again for each further feed that delivers it for a program not named before.

    Settlement: a fact of a `certain` origin is final, and no decision concerns it. Every other fact waits for the
    `Confirmed` of its slot, and then for `Finalized`, after which the fact is final, or for `Dead`, which takes the
    fact back. A fact of an `unproven` origin also waits for a `Proof` of its signature. `landed` makes it equal to
    other facts of its slot. `absent` takes it back. After `unknown` it waits only for its slot, but is never confirmed.

    Ids begin with `slot:`, and the ids of a transaction's facts with `slot:signature:`, so that a consumer finds the
    facts of a decision by id. `model.undecided` implements this rule for consumers that keep anything made of facts.

    Limits: a slot that is about 500 slots behind may never be decided.

    A consumer is called on the event loop. It must return quickly and must not raise.
    """

    def hear(self, news: Sequence[News]) -> None:
        """Handle the news that followed from one update."""

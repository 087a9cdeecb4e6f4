"""Facts: what the update flow found on the chain, as typed values, and the rule by which they settle."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.model.events import DecodedEvent, EventBody, NamedInstruction
from headrace.model.trades import Trade
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
    """Place where facts of one update were seen, and how certain they are.

    `signature` is None for an account whose source does not name the transaction, `version` None where only log lines
    came. `unproven`: whether the transaction is in the slot's block is yet to be proven; then `commitment` is
    `processed`, whatever the slot's.
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
        """Return whether no decision will take the facts back."""
        return self.commitment != "processed"


class MintFacts(NamedTuple):
    """Decimals of a mint, and its supply in base units; None where not known."""

    decimals: int | None = None
    supply: int | None = None


class EventSeen(msgspec.Struct, frozen=True, gc=False):
    """An event of a program. `event.data` holds the fields that its meaning reads, `body` has all."""

    event_id: str
    origin: Origin
    event: DecodedEvent
    body: EventBody


class Traded(msgspec.Struct, frozen=True, gc=False):
    """A trade, and the event that records it. Its id is that of the event.

    `time_s` is the chain's own, in Unix seconds. `base` and `quote` are what is known of the mints. A trade of unknown
    mints comes again with `again` set, once, when the mints are known.
    """

    seen: EventSeen
    trade: Trade
    time_s: int
    base: MintFacts
    quote: MintFacts
    again: bool = False


class TokenCreated(msgspec.Struct, frozen=True, gc=False):
    """A token came to be, by an event, whose id is the fact's."""

    seen: EventSeen
    mint: str
    name: str
    symbol: str
    creator: str


class TransactionSeen(msgspec.Struct, frozen=True, gc=False):
    """A transaction as a whole, for the programs of `program_ids`. A further feed can bring one for a program more.

    `instructions` are empty where only log lines came. `body` is that of the message for a program with an IDL.
    `truncated`: a node cut the log lines.
    """

    event_id: str
    origin: Origin
    update: LogsUpdate | TransactionUpdate
    events: Sequence[DecodedEvent]
    instructions: Sequence[NamedInstruction]
    body: bytes
    program_ids: Sequence[str]
    truncated: bool


class AccountChanged(msgspec.Struct, frozen=True, gc=False):
    """New content of an account; `body` is that of its message.

    `program` is the owner's name, or its id where there is no IDL; `name` that of the layout, None where there is none.
    `values` are the fields that the account's meaning reads.
    """

    event_id: str
    origin: Origin
    update: AccountUpdate
    program: str
    name: str | None
    body: bytes
    values: Mapping[str, Any]


class SlotChanged(msgspec.Struct, frozen=True, gc=False):
    """A slot reached a status. `parent` is None where no source named it."""

    slot: int
    status: SlotStatus
    parent: int | None
    source: str


class Gap(NamedTuple):
    """A stretch of slots, both ends included, in which something may be missing."""

    gap_id: str
    from_slot: int
    to_slot: int
    state: GapState
    reason: str


class GapDeclared(msgspec.Struct, frozen=True, gc=False):
    """A gap of a feed. With `program` only meanings are missing: trades and tokens of that program's events."""

    gap: Gap
    feed: str
    program: str | None = None


class Restarted(msgspec.Struct, frozen=True, gc=False):
    """A recording starts over: nothing that was heard so far counts, and the same facts come again under their ids."""


Fact: TypeAlias = EventSeen | Traded | TokenCreated | TransactionSeen | AccountChanged | SlotChanged | GapDeclared


class Confirmed(msgspec.Struct, frozen=True):
    """The cluster voted for the slot: all of its facts are confirmed, but for those that are unproven."""

    slot: int


class Finalized(msgspec.Struct, frozen=True):
    """The slot is rooted: nothing takes back its facts, but for those that are unproven."""

    slot: int


class Dead(msgspec.Struct, frozen=True):
    """The slot did not happen, nor did any fact of it.

    `dead_slot`: the node gave it up. `fork`: a confirmed chain passed it by. `equivocation`: the node threw it away and
    builds it again, so another version may follow.
    """

    slot: int
    reason: DeadReason


class Proof(msgspec.Struct, frozen=True):
    """Answer about unproven signatures of a slot.

    The `landed` are in the slot's block. The `absent` are not, and their facts did not happen. No node answered in time
    about the `unknown`.
    """

    slot: int
    landed: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


Verdict: TypeAlias = Confirmed | Finalized | Dead
"""What is decided of a slot."""

Decision: TypeAlias = Verdict | Proof
DECISIONS: Final = (Confirmed, Finalized, Dead, Proof)
"""The classes of `Decision`, as a tuple: made once, where a union written in a check is made anew each time."""

News: TypeAlias = Fact | Decision | Restarted


class FactConsumer(Protocol):
    """Hears what the update flow finds, as it is. Messages to clients, market numbers and order triggers are consumers.

    Order: facts and decisions come as they were found: a decision after all facts that it concerns, and where slots are
    decided together, lower ones first.

    Delivery: each fact once, in this process, from its start on; nothing is kept for a consumer that comes later. A
    call brings what followed from one update, after the bus has the messages made of it. The same event comes again
    under its id where its slot died and happened anew, where its trade's mints became known (`again`), and after
    `Restarted`; a transaction comes again for each further feed that is not of its programs.

    Settlement: a fact of a `certain` origin stands, and no decision concerns it. Any other waits for its slot's
    `Confirmed`, then for `Finalized`, after which it stands, or for `Dead`, which takes it back. One of an `unproven`
    origin waits for a `Proof` of its signature as well: `landed` makes it like others of its slot, `absent` takes it
    back, and an `unknown` one waits for its slot alone but is never confirmed. Ids begin with `slot:`, those of a
    transaction with `slot:signature:`, so what a decision takes back is found by id; `model.undecided` implements the
    rule for whoever keeps something by facts.

    Limits: a slot that is some 500 slots behind may never be decided.

    A consumer is called on the event loop: it must be quick, and must not raise.
    """

    def hear(self, news: Sequence[News]) -> None:
        """Take what followed from one update."""

"""The state of a source's connection, the values that a transport passes on, and how a connection ended. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from headrace.model.updates import AccountUpdate, LogsUpdate, SlotStatus, TransactionUpdate
from headrace.sources.progress import Progress, Watch
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.subscriptions import SLOTS, ChainSubscription

DETAIL_MAX: Final = 200


class SlotNotice(NamedTuple):
    """A node began a slot on top of `parent`. `root` is the newest slot that it will never take back (0: unknown)."""

    slot: int
    parent: int | None
    root: int


class StatusNotice(NamedTuple):
    """A node reports that a slot on top of `parent` reached a status other than processed."""

    slot: int
    status: SlotStatus
    parent: int | None


class SignatureNotice(NamedTuple):
    """The transaction of a `signature:` subscription reached the commitment; the node then drops the subscription."""

    slot: int
    subscription: ChainSubscription


class LandedNotice(NamedTuple):
    """A transaction of a `transactions:` subscription is in a slot, but was not delivered whole: it must be fetched."""

    slot: int
    subscription: ChainSubscription
    signature: str


class Unreadable(NamedTuple):
    """A notification of some `subscriptions` that can't be read.

    Its `slot` and `pubkey` are set if they could be read.
    """

    subscriptions: tuple[ChainSubscription, ...]
    reason: str
    slot: int | None = None
    pubkey: str | None = None


Content: TypeAlias = LogsUpdate | AccountUpdate | TransactionUpdate
Arrival: TypeAlias = Content | LandedNotice | SlotNotice | StatusNotice | SignatureNotice | Unreadable
"""A value that a transport makes of a node's message, and passes to the merged stream."""


class Parting(NamedTuple):
    """End of a connection.

    `reason` is a constant: `refused` (not established), `denied` (another attempt would fail too: a wrong key or path),
    `closed`, `too_large`, `flood`, `lagged` (the node dropped messages that were not read in time), `no_ack`,
    `id_taken`, `silent`, `head_stands`, `behind`, `feed_stands`. `detail` is for people and contains no secret.
    `rest_s`: the node asks for a pause of this many seconds.
    """

    reason: str
    detail: str = ""
    rest_s: float = 0.0


def _nothing() -> None:
    """Do nothing: the transport is not connected."""


class Connection:
    """One connection to an endpoint, from its first attempt to its end. Each attempt has a new object.

    The transport sets `connected`, `refused` (subscription → reason), `on_wanted` and `on_part`, and calls
    `watch.message` for each message. The merged stream sets the other attributes.
    - `name`: the `source` of the connection's updates (`rpc-0`).
    - `complete`: the node has answered all subscriptions.
    - `whole`: from now on the connection delivers everything for the subscriptions that the node accepted.
    """

    def __init__(
        self,
        name: str,
        number: int,
        wanted: Sequence[ChainSubscription],
        *,
        settings: NodeSourceSettings,
        now: float,
    ) -> None:
        self.name, self.number, self.began = name, number, now
        self.wanted = tuple(wanted)
        self.progress = Progress(settings.commitment, settings.gap_margin_slots)
        self.watch = Watch(now, stall_s=settings.stall_s, stall_slots=settings.stall_slots)
        self.connected = self.whole = False
        self.parting: Parting | None = None
        self.on_wanted: Callable[[], None] = _nothing
        """Called when `wanted` has changed."""
        self.on_part: Callable[[], None] = _nothing
        """Called when the connection is to be ended."""
        self.acknowledged: set[ChainSubscription] = set()
        self.refused: Mapping[ChainSubscription, str] = {}
        self.handing_in = False
        """True while an arrival waits for room on the outlet; nothing is read meanwhile."""
        self.has_slots = False
        """True if the node sends slots. If not, its position is known only from the slots of its updates."""
        self.held_heads: list[tuple[SlotNotice, int]] = []
        """Heads that nothing confirms yet, with their receive times (ns)."""
        self.unreadable = 0
        """Number of notifications that could not be read."""
        self.unreadable_at = 0.0
        self.unreadable_last = ""

    @property
    def complete(self) -> bool:
        """Return whether the connection is up and every subscription is answered, at least one of them accepted."""
        answered = all(each in self.acknowledged or each in self.refused for each in self.wanted)
        return self.connected and answered and bool(self.acknowledged)

    def want(self, wanted: Sequence[ChainSubscription]) -> None:
        """Replace the wanted subscriptions; the transport subscribes and unsubscribes accordingly."""
        for subscription in set(self.wanted) - set(wanted):
            self.progress.forget(subscription.feed)
            self.acknowledged.discard(subscription)
        self.wanted = tuple(wanted)
        self.on_wanted()

    def part(self, reason: str, detail: str = "", rest_s: float = 0.0) -> None:
        """End the connection. If it is called more than once, the first reason is kept."""
        if self.parting is None:
            self.parting = Parting(reason, detail[:DETAIL_MAX], rest_s)
        self.on_part()

    def note_unreadable(self, lost: Unreadable, now: float) -> None:
        """Count a notification that could not be read, for the health board."""
        self.unreadable += 1
        self.unreadable_at = now
        self.unreadable_last = f"{lost.subscriptions[0].kind}: {lost.reason}"

    def surely(self, reason: str = "") -> dict[str, int]:
        """Return feed → the slot up to which the connection certainly delivered everything.

        `reason` is how it ended.
        """
        trust_head = reason != "feed_stands" and SLOTS not in self.refused
        return self.progress.surely(trust_head=trust_head)

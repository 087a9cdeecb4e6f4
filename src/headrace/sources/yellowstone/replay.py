"""Remembers an endpoint's slots across its connections, and drops the updates that a replay repeats. Pure.

After a disconnect, the next request has a `from_slot`: a slot whose block was complete before. The node then repeats
slots that were delivered. If a slot's block was complete, its repeated updates are held until the block comes again.
With the same hash the updates are known, and dropped. With another hash the slot has a new version, which voids the
first version and its updates. If a slot's block was not complete, only the accounts that were delivered are dropped,
recognised by their write version.
"""

from collections.abc import Collection, Iterable
from typing import Final

from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate, weight_of
from headrace.sources.connection import Arrival, LandedNotice, SignatureNotice, SlotNotice, StatusNotice, Unreadable
from headrace.sources.subscriptions import ChainSubscription
from headrace.sources.yellowstone.updates import BlockMeta

SLOTS_KEPT: Final = 512
UNFINISHED_MAX: Final = 16
"""Maximum number of slots without a complete block whose delivered accounts are remembered."""
REPLAY_MAX: Final = 512
"""Maximum number of slots that a replay may span. Nodes keep about 150."""
BACK: Final = 2
"""Slots by which a replay begins before the newest complete block."""
LATE: Final = 8
"""Maximum number of slots by which a block may come after its child."""
HELD_BYTES_MAX: Final = 64 * 1024 * 1024


class Resume:
    """State of one endpoint. Call `begin` for each connection, then `take` for each of its arrivals."""

    def __init__(self) -> None:
        self.replaying = False
        self.first: int | None = None
        """First slot that the connection delivers completely; None while that is unknown."""
        self._blocks: dict[int, str] = {}
        self._head = 0
        """Slot of the newest block whose parent is known."""
        self._created: set[int] = set()
        self._unfinished: dict[int, set[tuple[str, str, int | None]]] = {}
        self._reached: int | None = None
        self._feeds: frozenset[str] = frozenset()
        self._oldest: int | None = None
        self._asked: int | None = None
        self._refused = 0
        self._held: dict[int, list[Arrival]] = {}
        self._held_bytes = 0
        self._base: int | None = None
        """Slot of the connection's first block. Covers, not `_left_out`, account for earlier slots."""
        self._awaited: dict[int, int] = {}
        """By slot: blocks that have not come although a child has; the value is the child's slot."""

    # Between connections.

    def ended(self, reached: int | None, feeds: Iterable[str]) -> None:
        """Note that a connection ended, which had delivered all of `feeds` up to the slot `reached`."""
        if reached is not None:
            self._reached, self._feeds = reached, frozenset(feeds)

    def covered(self, reached: int) -> None:
        """Continue after an earlier source that delivered everything up to the slot `reached`."""
        self._reached = reached

    def refused(self, oldest: int | None) -> None:
        """Note that the node refused to begin at the requested slot; `oldest` is the oldest slot that it offered."""
        known = self._asked is not None and oldest is not None and oldest > self._asked and not self._refused
        self._refused += 1
        self._oldest = oldest if known else None
        if not known:
            self._reached = None

    def begin(self, *, replay: bool = True) -> int | None:
        """Begin a connection; return the slot for `from_slot`, or None to begin at the chain's head."""
        self.first, self._asked = None, self._from_slot() if replay else None
        self.replaying = self._asked is not None
        self._oldest = None
        self._held, self._held_bytes = {}, 0
        self._base, self._awaited = None, {}
        return self._asked

    def _from_slot(self) -> int | None:
        if self._oldest is not None:
            return self._oldest
        if self._reached is None:
            return None
        if not self._blocks:
            return max(0, self._reached - BACK)
        newest = min(self._head - BACK, self._reached + 1)
        known = max((slot for slot in self._blocks if slot <= newest), default=max(0, newest))
        return None if self._head - known > REPLAY_MAX else known

    # During a connection.

    def take(self, arrival: Arrival | BlockMeta, wanted: Collection[ChainSubscription]) -> list[Arrival]:
        """Return the arrivals to hand in now that `arrival` came.

        A slot that the node left out becomes an Unreadable of `wanted`, so that its loss is declared.
        """
        if isinstance(arrival, BlockMeta):
            return self._block(arrival, wanted)
        if isinstance(arrival, Unreadable | SignatureNotice):
            return [arrival]
        slot = arrival.slot
        if not self.replaying:
            self._note(arrival, slot)
            return [arrival]
        if isinstance(arrival, SlotNotice):
            if slot <= self._head:
                return []
            return [*self._finish(), arrival]
        if isinstance(arrival, StatusNotice):
            return self._status(arrival, slot)
        if slot in self._blocks:
            return self._hold(arrival, slot)
        if _version(arrival) in self._unfinished.get(slot, ()):
            return []
        self._note(arrival, slot)
        return [arrival]

    def note(self, update: AccountUpdate) -> None:
        """Remember an account that was delivered outside a replay."""
        if update.slot not in self._blocks:
            self._note(update, update.slot)

    def _note(self, arrival: Arrival, slot: int) -> None:
        """Remember accounts of a slot whose block is not complete, and slots whose bank was created."""
        if isinstance(arrival, AccountUpdate) and slot not in self._blocks:
            known = self._unfinished.get(slot)
            if known is None:
                known = self._unfinished[slot] = set()
                if len(self._unfinished) > UNFINISHED_MAX:
                    del self._unfinished[min(self._unfinished)]
            known.add((arrival.feed, arrival.pubkey, arrival.write_version))
        elif isinstance(arrival, StatusNotice) and arrival.status == "created_bank":
            if slot in self._created:  # a new version of the slot: forget the former version
                self._blocks.pop(slot, None)
                self._unfinished.pop(slot, None)
            self._created.add(slot)

    def _block(self, meta: BlockMeta, wanted: Collection[ChainSubscription]) -> list[Arrival]:
        known = self._blocks.get(meta.slot)
        ready: list[Arrival] = []
        if self._base is None:
            self._base = meta.slot
            if self._asked is not None:
                begins = meta.slot <= self._asked or meta.parent < self._asked
                self.first = self._asked if begins else meta.slot
        if self.replaying:
            ready = self._finish() if meta.slot > self._head else self._released(meta, known)
        self._blocks[meta.slot] = meta.blockhash
        self._unfinished.pop(meta.slot, None)
        ready += [Unreadable(tuple(wanted), "left_out", slot) for slot in self._left_out(meta)]
        if meta.parent in self._blocks or not self._head:
            self._head = max(self._head, meta.slot)
        if len(self._blocks) > SLOTS_KEPT:
            del self._blocks[min(self._blocks)]
            self._created = {slot for slot in self._created if slot > self._head - SLOTS_KEPT}
        return ready

    # Replay.

    def _status(self, notice: StatusNotice, slot: int) -> list[Arrival]:
        if notice.status == "created_bank" and slot <= self._head:
            if slot in self._created:
                return []
            self._created.add(slot)
        return [notice]

    def _hold(self, arrival: Arrival, slot: int) -> list[Arrival]:
        if self._held_bytes > HELD_BYTES_MAX:  # too much is held; the pipeline drops repeated updates, too
            return [arrival]
        self._held.setdefault(slot, []).append(arrival)
        if isinstance(arrival, AccountUpdate | LogsUpdate | TransactionUpdate):
            self._held_bytes += weight_of(arrival)
        return []

    def _released(self, meta: BlockMeta, known: str | None) -> list[Arrival]:
        """Return the held updates of a block that are new, after notices that void a former version."""
        held = self._held.pop(meta.slot, [])
        if known is None:
            return held
        if known == meta.blockhash:
            return [each for each in held if _feed(each) not in self._feeds]
        notice = StatusNotice(meta.slot, "created_bank", meta.parent)
        voids: list[Arrival] = [notice] if meta.slot in self._created else [notice, notice]
        self._created.add(meta.slot)
        return [*voids, *held]

    def _finish(self) -> list[Arrival]:
        """End the replay, as a new slot came. Return the held updates of feeds that the last connection lacked."""
        self.replaying, self._refused = False, 0
        held = [each for slot in sorted(self._held) for each in self._held[slot] if _feed(each) not in self._feeds]
        self._held, self._held_bytes = {}, 0
        return held

    def _left_out(self, meta: BlockMeta) -> list[int]:
        """Return the slots of overdue blocks, and the unknown slots below them.

        A block is overdue if its child came at least LATE slots ago.
        """
        base = self._base if self._base is not None else meta.slot
        self._awaited.pop(meta.slot, None)
        if base <= meta.parent < meta.slot and meta.parent not in self._blocks and meta.slot - meta.parent < REPLAY_MAX:
            self._awaited[meta.parent] = meta.slot
        overdue = [slot for slot, above in self._awaited.items() if meta.slot - above >= LATE]
        missing: set[int] = set()
        for slot in overdue:
            del self._awaited[slot]
            below = max((known for known in self._blocks if known < slot), default=base - 1)
            missing.update(range(max(below, slot - REPLAY_MAX) + 1, slot + 1))
        return sorted(missing)


def _version(arrival: Arrival) -> tuple[str, str, int | None] | None:
    return (arrival.feed, arrival.pubkey, arrival.write_version) if isinstance(arrival, AccountUpdate) else None


def _feed(arrival: Arrival) -> str:
    if isinstance(arrival, AccountUpdate | LogsUpdate | TransactionUpdate):
        return arrival.feed
    return arrival.subscription.feed if isinstance(arrival, LandedNotice) else ""

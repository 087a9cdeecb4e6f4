"""What is known of an endpoint's slots across its connections, and what of a replay is new. Pure.

A connection that is lost is resumed with `from_slot`, at a block that was whole before. The node then sends slots again
that were delivered. Updates of a slot whose block was whole are held until its block comes again: with the same hash
they are known and dropped, with another hash the slot is another version, which voids the first. Of a slot that was not
whole, what was delivered is left out, by write version.
"""

from collections.abc import Collection, Iterable
from typing import Final

from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate, weight_of
from headrace.sources.connection import Arrival, LandedNotice, SignatureNotice, SlotNotice, StatusNotice, Unreadable
from headrace.sources.subscriptions import ChainSubscription
from headrace.sources.yellowstone.updates import BlockMeta

SLOTS_KEPT: Final = 512
UNFINISHED_MAX: Final = 16
"""Slots without a whole block of which the delivered versions are remembered."""
REPLAY_MAX: Final = 512
"""Slots that a replay may span; nodes keep some 150."""
BACK: Final = 2
"""Slots before the last whole one at which a replay begins."""
LATE: Final = 8
"""Slots by which a block may come after the one that stands on it."""
HELD_BYTES_MAX: Final = 64 * 1024 * 1024


class Resume:
    """State of one endpoint. Call `begin` for each connection, then `take` for all that it brings."""

    def __init__(self) -> None:
        self.replaying = False
        self.first: int | None = None
        """The slot from which on the replay is whole; None while that is unknown."""
        self._blocks: dict[int, str] = {}
        self._head = 0
        """The newest block on top of a known one."""
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
        """The first block of this connection; what lies before it is the matter of covers."""
        self._awaited: dict[int, int] = {}
        """Parents that have not come, each with the block that stands on it."""

    # Between connections.

    def ended(self, reached: int | None, feeds: Iterable[str]) -> None:
        """Note that a connection ended: it surely delivered all of `feeds` up to the slot `reached`."""
        if reached is not None:
            self._reached, self._feeds = reached, frozenset(feeds)

    def covered(self, reached: int) -> None:
        """Continue an earlier source, which delivered everything up to `reached`."""
        self._reached = reached

    def refused(self, oldest: int | None) -> None:
        """Note that the node refused to begin at the slot asked for; `oldest` is the one that it named."""
        known = self._asked is not None and oldest is not None and oldest > self._asked and not self._refused
        self._refused += 1
        self._oldest = oldest if known else None
        if not known:
            self._reached = None

    def begin(self, *, replay: bool = True) -> int | None:
        """Begin a connection; return the slot from which the node shall send again, None for a fresh start."""
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
        """Return what is to be handed in now that `arrival` came. `wanted` lose what a replay left out."""
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
        """Remember what was delivered of a slot that is not whole yet."""
        if isinstance(arrival, AccountUpdate) and slot not in self._blocks:
            known = self._unfinished.get(slot)
            if known is None:
                known = self._unfinished[slot] = set()
                if len(self._unfinished) > UNFINISHED_MAX:
                    del self._unfinished[min(self._unfinished)]
            known.add((arrival.feed, arrival.pubkey, arrival.write_version))
        elif isinstance(arrival, StatusNotice) and arrival.status == "created_bank":
            if slot in self._created:  # another version: nothing of the former one counts
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
        if self._held_bytes > HELD_BYTES_MAX:  # the pipeline drops what is repeated
            return [arrival]
        self._held.setdefault(slot, []).append(arrival)
        if isinstance(arrival, AccountUpdate | LogsUpdate | TransactionUpdate):
            self._held_bytes += weight_of(arrival)
        return []

    def _released(self, meta: BlockMeta, known: str | None) -> list[Arrival]:
        """Return what is new of the held updates of a block."""
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
        """End the replay at a slot that is new; return what is still held for feeds that are new."""
        self.replaying, self._refused = False, 0
        held = [each for slot in sorted(self._held) for each in self._held[slot] if _feed(each) not in self._feeds]
        self._held, self._held_bytes = {}, 0
        return held

    def _left_out(self, meta: BlockMeta) -> list[int]:
        """Return slots that did not come although blocks stand on them; a block may come somewhat after its child."""
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

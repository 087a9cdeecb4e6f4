"""Keeps items made of facts that a fork may still take back, until their slots and signatures are decided. Pure."""

from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from headrace.model.facts import Confirmed, Dead, Decision, Finalized, Proof

SLOTS_KEPT: Final = 512
ITEMS_MAX: Final = 200_000
NOT_IN_BLOCK: Final = "not_in_block"
"""Reason for the retraction of a fact whose slot is on the chain but whose transaction is not in the slot's block."""

T = TypeVar("T")


class Outcome(NamedTuple, Generic[T]):
    """Effect of a decision on the kept items.

    - `confirmed`: items that are now confirmed.
    - `retracted`: groups of items, each retracted as a whole, for `reason`.
    - `final`: items that nothing can take back; they are no longer kept.
    - `unsure`: the slot's items whose transaction is not proven to be in the slot's block, not yet or never.
    """

    confirmed: Sequence[T] = ()
    retracted: Sequence[Sequence[T]] = ()
    final: Sequence[T] = ()
    reason: str = ""
    unsure: Sequence[T] = ()


class _Slot(Generic[T]):
    """Items of one slot that is not decided.

    - `known`: final if the slot becomes final.
    - `unproven`: also need the proof of their signature.
    - `doubted`: have a signature about which no node answered.
    - `reported`: how many of the `known` items were already returned as confirmed, from the first.
    """

    __slots__ = ("confirmed", "doubted", "final", "known", "reported", "unproven")

    def __init__(self, *, confirmed: bool, final: bool) -> None:
        self.known: list[T] = []
        self.unproven: dict[str, list[T]] = {}
        self.doubted: list[T] = []
        self.reported = 0
        self.confirmed, self.final = confirmed, final

    def newly_confirmed(self) -> list[T]:
        items = self.known[self.reported :] if self.confirmed else []
        self.reported += len(items)
        return items

    def unsure(self) -> list[T]:
        return [*(item for items in self.unproven.values() for item in items), *self.doubted]

    def __len__(self) -> int:
        return len(self.known) + len(self.doubted) + sum(map(len, self.unproven.values()))


class Undecided(Generic[T]):
    """Items by slot and signature, settled by the rule of `facts.FactConsumer`.

    At most `slots_max` slots and `items_max` items are kept. If there are more, the slot that was added first is
    dropped with its items, and no later decision concerns these items.
    """

    def __init__(self, slots_max: int = SLOTS_KEPT, items_max: int = ITEMS_MAX) -> None:
        self._slots_max, self._items_max = slots_max, items_max
        self._slots: dict[int, _Slot[T]] = {}
        self._decided: dict[int, bool] = {}  # slots that are confirmed → whether they are final
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, slot: object) -> bool:
        return slot in self._slots

    def is_unproven(self, slot: int, signature: str) -> bool:
        """Return whether items of the signature wait for its proof."""
        kept = self._slots.get(slot)
        return kept is not None and signature in kept.unproven

    def add(self, slot: int, items: Sequence[T], unproven: str = "") -> list[T]:
        """Keep items of a slot, under the signature `unproven` if given. Return the items dropped to make room."""
        given_up: list[T] = []
        kept = self._slots.get(slot)
        if kept is None:
            if len(self._slots) >= self._slots_max:
                given_up += self._forget(next(iter(self._slots)))
            final = self._decided.get(slot)
            kept = self._slots[slot] = _Slot(confirmed=final is not None, final=bool(final))
        if unproven:
            kept.unproven.setdefault(unproven, []).extend(items)
        else:
            kept.known += items
        self._count += len(items)
        while self._count > self._items_max:
            given_up += self._forget(next(iter(self._slots)))
        return given_up

    def decide(self, decision: Decision) -> Outcome[T]:
        """Apply a decision to the items that it concerns."""
        kept = self._slots.get(decision.slot)
        match decision:
            case Confirmed(slot):
                self._remember(slot, final=False)
                if kept is not None:
                    kept.confirmed = True
                    return Outcome(confirmed=kept.newly_confirmed(), unsure=kept.unsure())
            case Finalized(slot):
                self._remember(slot, final=True)
                if kept is not None:
                    kept.confirmed = kept.final = True
                    return self._finished(slot, kept, kept.newly_confirmed(), [])
            case Dead(slot, reason):
                self._decided.pop(slot, None)
                if kept is not None:
                    return Outcome(retracted=[self._forget(slot)], reason=reason)
            case Proof():
                if kept is not None:
                    return self._prove(decision, kept)
        return Outcome()

    def _prove(self, proof: Proof, kept: _Slot[T]) -> Outcome[T]:
        for signature in proof.landed:
            kept.known += kept.unproven.pop(signature, [])
        retracted = [items for signature in proof.absent if (items := kept.unproven.pop(signature, None))]
        self._count -= sum(map(len, retracted))
        for signature in proof.unknown:
            kept.doubted += kept.unproven.pop(signature, [])
        return self._finished(proof.slot, kept, kept.newly_confirmed(), retracted)

    def _finished(self, slot: int, kept: _Slot[T], confirmed: list[T], retracted: list[list[T]]) -> Outcome[T]:
        """Return the outcome. Drop the slot if no decision can change its items any more."""
        unsure = kept.unsure()
        final = self._forget(slot) if kept.final and not kept.unproven else []
        return Outcome(confirmed, retracted, final, NOT_IN_BLOCK, unsure)

    def _remember(self, slot: int, *, final: bool) -> None:
        if slot not in self._decided and len(self._decided) >= self._slots_max:
            del self._decided[next(iter(self._decided))]
        self._decided[slot] = final or self._decided.get(slot, False)

    def _forget(self, slot: int) -> list[T]:
        kept = self._slots.pop(slot, None)
        items = [] if kept is None else [*kept.known, *kept.unsure()]
        self._count -= len(items)
        return items

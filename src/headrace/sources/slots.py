"""The chain's head according to all nodes of a source, and which slots are confirmed, finalized or dead."""

import structlog

from headrace.model.errors import BadInputError, TransientError
from headrace.model.updates import SlotStatus, SlotUpdate
from headrace.runtime.clock import Clock
from headrace.solana.rpc import Rpc, RpcError
from headrace.sources import Outlet
from headrace.sources.confirm import Confirmations
from headrace.sources.connection import SlotNotice, StatusNotice
from headrace.sources.head import Heads
from headrace.sources.health import SourceHealth
from headrace.sources.metrics import SourceMetrics
from headrace.sources.proofs import Proofs
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.subscriptions import SLOTS

_log = structlog.get_logger("source")


class ChainSlots:
    """Judges the slots that witnesses report, and publishes the status of slots as SlotUpdates.

    Witnesses are connections, by their names, and `<source>-http`. A slot that a witness takes back is counted. If the
    slot had been believed, it is forgotten. `proofs` is informed which slots are decided.
    """

    def __init__(
        self,
        name: str,
        proofs: Proofs,
        *,
        outlet: Outlet,
        settings: NodeSourceSettings,
        clock: Clock,
        metrics: SourceMetrics,
        health: SourceHealth,
    ) -> None:
        self._name, self._proofs, self._outlet = name, proofs, outlet
        self._settings, self._clock, self._metrics, self._health = settings, clock, metrics, health
        self._heads = Heads()
        self._confirmations = Confirmations()
        self._root = 0

    @property
    def head(self) -> int:
        """The head of the chain, 0 while it is unknown."""
        return self._heads.slot

    def head_of(self, witness: str) -> int:
        """Return the newest slot of a witness that counts; 0 if none does."""
        return self._heads.of(witness).slot

    def head_of_others(self, witness: str) -> int:
        """Return the head according to all other witnesses."""
        return self._heads.others(witness, self._clock.monotonic())

    def ahead(self) -> dict[str, int]:
        """Return, for each witness too far ahead of the head, by how many slots."""
        return self._heads.ahead()

    def forget(self, witness: str) -> None:
        """Forget a witness that is gone."""
        self._heads.forget(witness)

    def hear(self, witness: str, slot: int) -> bool:
        """Take a slot that a witness reports as its head. Return whether it counts."""
        climb, before, now = self._heads.of(witness), self._heads.slot, self._clock.monotonic()
        wild = climb.wild
        counts = self._heads.hear(witness, slot, now)
        takes_back = climb.wild > wild
        if takes_back:
            self._metrics.wild(witness)
            self._health.wild(witness, climb.wildest, now)
        head = self._heads.slot
        if takes_back or head < before or not before:
            self._confirmations.come_down(head)
            self._proofs.come_down(head)
            self._root = min(self._root, head)
        return counts

    def can_be(self, slot: int, witness: str) -> bool:
        """Return whether an update that the witness delivers can be from `slot`."""
        return self._heads.can_be(slot, witness, self._clock.monotonic())

    def appeared(self, slot: int) -> None:
        """Let `slot` wait for confirmation, because an update of it came, or `getSlot` returned it."""
        self._confirmations.processed(slot)

    async def begun(self, witness: str, notice: SlotNotice, received_ns: int) -> None:
        """Publish a head that counts as processed, and a new root as finalized."""
        self._confirmations.processed(notice.slot, notice.parent)
        await self._put(witness, notice.slot, "processed", notice.parent, received_ns)
        if notice.root > self._root:
            self._root = notice.root
            self._proofs.reached(notice.root)
            await self._put(witness, notice.root, "finalized", None, received_ns)

    async def reached(self, witness: str, notice: StatusNotice, received_ns: int) -> None:
        """Publish a status that a node reports. If the status decides the slot, the slot is no longer asked for."""
        if notice.status in ("confirmed", "finalized"):
            self._proofs.reached(notice.slot)
        elif notice.status == "dead":
            self._proofs.died(notice.slot)
        if notice.status == "finalized":
            self._root = max(self._root, notice.slot)
        if notice.status != "created_bank":
            self._confirmations.decided(notice.slot)
        await self._put(witness, notice.slot, notice.status, notice.parent, received_ns)

    async def confirm(self, rpc: Rpc) -> None:
        """Ask, every `confirm_s` until cancelled, which processed slots are confirmed. Publish the answers.

        A node that refuses may lack only these slots, so it is asked again, less often.
        """
        refused = False
        while True:
            await self._clock.sleep(self._settings.confirm_s)
            span = self._confirmations.span()
            if span is None:
                continue
            try:
                blocks = await rpc.get_blocks(*span)
            except (TransientError, BadInputError) as error:
                _log.debug("confirm_failed", error=str(error))
                continue
            except RpcError as error:
                if not refused:
                    _log.warning("confirm_refused", source=self._name, error=str(error))
                refused = True
                await self._clock.sleep(self._settings.check_s)
                continue
            refused = False
            for outcome in self._confirmations.listed(blocks, span):
                if outcome.status == "dead":
                    self._proofs.died(outcome.slot)
                else:
                    self._proofs.reached(outcome.slot)
                await self._put(self._name, outcome.slot, outcome.status, outcome.parent, self._clock.wall_ns())

    async def _put(self, source: str, slot: int, status: SlotStatus, parent: int | None, at_ns: int) -> None:
        update = SlotUpdate(source=source, feed=SLOTS.feed, received_ns=at_ns, slot=slot, status=status, parent=parent)
        if not self._outlet.put_nowait(update):
            await self._outlet.put(update)

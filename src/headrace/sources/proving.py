"""Asks nodes, repeatedly, whether delivered transactions are in the blocks of their slots.

`getSignatureStatuses` answers for 256 signatures at once. If a node refuses it, the signatures are looked for in
`getBlock`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import structlog

from headrace.model.errors import HeadraceError, TransientError
from headrace.runtime.clock import Clock
from headrace.solana.rpc import Rpc, RpcError
from headrace.solana.rpc_errors import METHOD_NOT_FOUND
from headrace.sources.ledger import why
from headrace.sources.proofs import Answer, Proofs, Proven, Status, Waiting
from headrace.sources.settings import NodeSourceSettings

BATCH_MAX: Final = 256
"""Maximum number of signatures in one `getSignatureStatuses` call, by the nodes' limit."""
CALLS_MAX: Final = 8
"""Maximum number of calls in one round."""
BLOCKS_MAX: Final = 16
"""Maximum number of blocks in one round, `refill_page_s` apart.

With the pause between rounds, that is three blocks a second. The chain makes 2.5.
"""
LATE_SLOTS: Final = 64
"""Number of slots below the head at which a transaction without any status is looked for in its block."""
_OF_THE_METHOD: Final = frozenset({METHOD_NOT_FOUND, 401, 403, 404, 405, 410})
_ALONE_MAX: Final = 2
"""Maximum number of consecutive refusals of single signatures. After that the method counts as refused."""

_log = structlog.get_logger("source")


class ProofState(NamedTuple):
    """State of the proofs: whether transactions can be proven, and what is wrong (empty if nothing is)."""

    proves: bool
    detail: str


PROVEN: Final = ProofState(True, "")


class Prover:
    """Publishes the results of proofs, and signatures that are given up. `head` returns the chain's head."""

    def __init__(
        self,
        rpc: Rpc | None,
        proofs: Proofs,
        *,
        head: Callable[[], int],
        publish: Callable[[Sequence[Proven]], Awaitable[None]],
        settings: NodeSourceSettings,
        clock: Clock,
    ) -> None:
        self._rpc, self._proofs, self._head, self._publish = rpc, proofs, head, publish
        self._settings, self._clock = settings, clock
        self._statuses_fault = self._blocks_fault = ""
        self._statuses_after = self._blocks_after = 0.0
        """Times from which a refused method is tried again."""
        self._alone = 0
        self._tries: dict[int, int] = {}

    @property
    def state(self) -> ProofState:
        """Return the state of the proofs, for the health board."""
        if not self._statuses_fault:
            return PROVEN
        fault = f"getSignatureStatuses: {self._statuses_fault}"
        if not self._blocks_fault:
            return ProofState(True, f"{fault}; blocks are searched instead")
        return ProofState(
            False, f"{fault}; getBlock: {self._blocks_fault}; transactions are not promoted, and end in gaps"
        )

    async def run(self) -> None:
        """Ask for what is due and publish the results, every `confirm_s`, until cancelled."""
        while True:
            await self._clock.sleep(self._settings.confirm_s)
            if self._rpc is not None:
                left = await self._ask_statuses(self._rpc)
                await self._search_blocks(self._rpc, left)
            overdue = self._proofs.overdue(self._head(), self._clock.monotonic())
            if overdue:
                await self._publish(overdue)

    # Statuses.

    async def _ask_statuses(self, rpc: Rpc) -> dict[int, list[Waiting]]:
        """Return, by slot, the signatures that must be looked for in blocks."""
        due, left = self._proofs.due(BATCH_MAX * CALLS_MAX), list[Waiting]()
        for start in range(0, len(due), BATCH_MAX):
            left += await self._ask(rpc, due[start : start + BATCH_MAX])
        if self._statuses_refused:
            return {slot: [] for slot in self._proofs.slots_due()}
        by_slot: dict[int, list[Waiting]] = {}
        for waiting in left:
            by_slot.setdefault(waiting.slot, []).append(waiting)
        return by_slot

    async def _ask(self, rpc: Rpc, asked: list[Waiting]) -> list[Waiting]:
        """Take the answers to one request. Return the signatures that are still open.

        A refused request is repeated in halves, because one signature must not hold up others.
        """
        if self._statuses_refused:
            return asked
        again = any(waiting.denials for waiting in asked)
        try:
            answers = await _answers(rpc, [waiting.signature for waiting in asked], history=again)
        except TransientError as error:
            _log.debug("proof_failed", error=str(error))
            return [waiting for waiting in asked if waiting.slot <= self._head() - LATE_SLOTS]
        except HeadraceError as error:
            self._alone += len(asked) == 1
            _log.debug("proof_refused", error=str(error), signatures=len(asked))
            if _is_of_the_method(error) or self._alone >= _ALONE_MAX:
                self._refuse_statuses(error)
            if self._statuses_refused or len(asked) == 1:
                return asked
            half = len(asked) // 2
            return [*await self._ask(rpc, asked[:half]), *await self._ask(rpc, asked[half:])]
        if self._statuses_fault:
            _log.info("statuses_answered_again")
        self._alone, self._statuses_fault = 0, ""
        await self._settled(self._proofs.answered(asked, answers))
        return []

    @property
    def _statuses_refused(self) -> bool:
        return self._clock.monotonic() < self._statuses_after

    def _refuse_statuses(self, error: HeadraceError) -> None:
        if not self._statuses_fault:
            _log.warning("statuses_refused", error=str(error), effect="blocks are searched for each transaction")
        self._alone, self._statuses_fault = 0, why(error)
        self._statuses_after = self._clock.monotonic() + self._settings.refused_retry_s

    # Blocks.

    async def _search_blocks(self, rpc: Rpc, left: dict[int, list[Waiting]]) -> None:
        """Search the blocks of some slots: first those searched least often, and among them the oldest."""
        tries = self._tries = {slot: self._tries.get(slot, 0) for slot in left}
        if not left or self._clock.monotonic() < self._blocks_after:
            return
        fault, had, next_s = "", False, 0.0
        for slot in sorted(left, key=lambda slot: (tries[slot], slot))[:BLOCKS_MAX]:
            await self._clock.sleep(max(0.0, next_s - self._clock.monotonic()))
            next_s = self._clock.monotonic() + self._settings.refill_page_s
            tries[slot] += 1
            try:
                if await self._search(rpc, slot, left[slot] or self._proofs.due_in(slot)):
                    had = True
                else:
                    fault = "no node has the block"
            except HeadraceError as error:
                _log.debug("block_not_had", slot=slot, error=str(error))
                fault = why(error)
                if _is_of_the_method(error):
                    self._blocks_after = self._clock.monotonic() + self._settings.refused_retry_s
                if _is_of_the_method(error) or _is_of_the_endpoint(error):
                    break
        self._blocks_fault = "" if had else fault

    async def _search(self, rpc: Rpc, slot: int, asked: list[Waiting]) -> bool:
        """Return whether an endpoint listed the block's signatures."""
        lists = await rpc.get_block_signatures(slot, [waiting.signature for waiting in asked])
        if lists:
            await self._settled(self._proofs.listed(asked, frozenset().union(*lists)))
        return bool(lists)

    async def _settled(self, proven: Sequence[Proven]) -> None:
        if proven:
            await self._publish(proven)


def _is_of_the_method(error: HeadraceError) -> bool:
    return isinstance(error, RpcError) and error.code in _OF_THE_METHOD


def _is_of_the_endpoint(error: HeadraceError) -> bool:
    """Return whether the endpoint fails, or asks for fewer requests, whatever the slot."""
    return isinstance(error, TransientError) and (not isinstance(error, RpcError) or error.too_fast)


async def _answers(rpc: Rpc, signatures: list[str], *, history: bool) -> list[Answer]:
    """Return the answers of as many endpoints as it takes to find all signatures."""
    try:
        told = await rpc.get_signature_statuses(signatures, history=history)
    except RpcError as error:
        if not history or isinstance(error, TransientError):
            raise
        history = False
        told = await rpc.get_signature_statuses(signatures)
    return [
        Answer(
            each.slot,
            [Status(*word) if isinstance(word, tuple) else word for word in each.words],
            history=history,
        )
        for each in told
    ]

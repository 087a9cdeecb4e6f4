"""Reads of the ledger over HTTP. Each has a deadline, is retried while nodes are behind, and is checked."""

from collections.abc import Awaitable, Callable, Container, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from headrace.model.errors import BadInputError, HeadraceError, TransientError
from headrace.model.updates import Commitment, LogsUpdate, TransactionUpdate
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock
from headrace.solana.rpc import OTHER_ANSWER, SIGNATURES_PER_CALL_MAX, Rpc, RpcError, SignatureInfo
from headrace.solana.rpc_bodies import TOO_LARGE
from headrace.solana.rpc_json import not_stored
from headrace.solana.transactions import transaction_from_rpc
from headrace.sources.coverage import Hole
from headrace.sources.metrics import SourceMetrics
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.subscriptions import fetched_at

T = TypeVar("T")

NULL_TRIES: Final = 6
"""Maximum number of requests for a transaction that a node lists but does not return. Each pause is twice the last."""
_PAGE_MIN: Final = 10
_PAUSE_S_MAX: Final = 8.0

_log = structlog.get_logger("source")


class Fetched(NamedTuple):
    """The part of a fetched transaction that can be delivered. `whole` is False if the node lacks a part."""

    update: TransactionUpdate | LogsUpdate | None = None
    whole: bool = True


class Ledger:
    """Reads for the source `name`, at `commitment`.

    A failure that may pass is retried until the read's deadline, and then raised as a HeadraceError.
    """

    def __init__(
        self, name: str, rpc: Rpc, *, settings: NodeSourceSettings, clock: Clock, metrics: SourceMetrics
    ) -> None:
        self.name, self.rpc, self.settings, self.clock, self.metrics = name, rpc, settings, clock, metrics
        self.commitment: Commitment = fetched_at(settings.commitment)

    def deadline(self) -> float:
        """Return the deadline of work that begins now: `refill_s` from now."""
        return self.clock.monotonic() + self.settings.refill_s

    def listing(self, address: str, holes: Sequence[Hole]) -> "Listing":
        """Return a listing of the address's transactions within some holes."""
        return Listing(self.rpc, address, holes, self.commitment)

    async def transaction(
        self, feed: str, signature: str, deadline: float, *, slot: int | None = None, tries: int = NULL_TRIES
    ) -> Fetched:
        """Return a transaction as an update of `feed`, from `slot` if it is given, as far as any node returns it."""
        backoff = self._backoff()
        try:
            for _ in range(tries):
                get = partial(self._get, signature, slot)
                result = await self.again(get, deadline)
                if result is not None:
                    lacks = not_stored(result)
                    if isinstance(result, dict) and result.get("meta", lacks) is None:
                        return Fetched(whole=False)
                    update = transaction_from_rpc(
                        result,
                        source=self.name,
                        feed=feed,
                        received_ns=self.clock.wall_ns(),
                        commitment=self.commitment,
                    )
                    return Fetched(shown_by(update, lacks), whole=not lacks)
                if tries > 1:
                    await self.clock.sleep(backoff.next_s())
        except BadInputError as error:
            self.metrics.bad(self.name, error.reason)
        except (RpcError, TransientError) as error:
            _log.debug("transaction_not_had", signature=signature, error=str(error))
        return Fetched()

    async def _get(self, signature: str, slot: int | None) -> Any:
        """Return the node's result. None if it has none, or answers with another transaction or another slot."""
        try:
            result = await self.rpc.get_transaction(signature, self.commitment)
        except BadInputError as error:
            if error.reason != OTHER_ANSWER:
                raise
            self.metrics.bad(self.name, error.reason)
            return None
        if slot is not None and isinstance(result, dict) and result.get("slot") != slot:
            self.metrics.bad(self.name, "other_slot")
            return None
        return result

    async def reach(self, slot: int, deadline: float) -> None:
        """Wait until the ledger at `commitment` is past `slot` by enough slots for the node to have indexed `slot`."""
        goal = slot + self.settings.refill_settle_slots
        backoff = self._backoff()
        while await self.again(partial(self.rpc.get_slot, self.commitment), deadline) < goal:
            if self.clock.monotonic() >= deadline:
                raise TransientError(f"slot {goal} was not {self.commitment} in time")
            await self.clock.sleep(backoff.next_s())

    async def pruned(self, from_slot: int, deadline: float) -> list[str]:
        """Return a description of the part of the ledger after `from_slot` that the node lacks.

        A node with pruned blocks lists the transactions that remain as if they were all.
        """
        try:
            first = await self.again(self.rpc.get_first_available_block, deadline)
        except RpcError:
            return []  # not every provider has this method; those without it usually keep the whole ledger
        return [f"the node's ledger begins at slot {first}"] if first > from_slot else []

    async def again(self, ask: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Repeat `ask` until it answers, fails for good, or the deadline passes; then raise the last failure."""
        backoff = self._backoff()
        while True:
            try:
                return await ask()
            except TransientError as error:
                pause_s = max(backoff.next_s(), error.retry_after_s or 0.0)
                if self.clock.monotonic() + pause_s >= deadline:
                    raise
            await self.clock.sleep(pause_s)

    def _backoff(self) -> Backoff:
        initial_s = self.settings.refill_retry_s
        return Backoff(initial_s, max(initial_s, _PAUSE_S_MAX))


class Listing:
    """Transactions of an address within some holes, newest first, page by page. `calls` counts the requests."""

    def __init__(self, rpc: Rpc, address: str, holes: Sequence[Hole], commitment: Commitment) -> None:
        self._rpc, self._address, self._holes, self._commitment = rpc, address, holes, commitment
        self._from_slot, self._to_slot = ends_of(holes)
        self._last: SignatureInfo | None = None
        self._last_page: set[str] = set()
        self._newest_slot = self._to_slot
        self._limit = SIGNATURES_PER_CALL_MAX
        self.found: list[SignatureInfo] = []
        self.calls = 0
        self.complete = False

    async def page(self) -> None:
        """Fetch the next older page. Set `complete` once it reaches past the holes or the start of the history.

        A page that is too large is requested in smaller pages, because anyone may fill transactions with long memos.
        Raises BadInputError if the node does not continue from the last page, but repeats it or returns newer
        transactions. Raises TransientError if the page is empty and the node does not have the last transaction of the
        previous page.
        """
        self.calls += 1
        try:
            infos = await self._rpc.get_signatures_for_address(
                self._address,
                before=self._last.signature if self._last else None,
                limit=self._limit,
                commitment=self._commitment,
                min_context_slot=self._newest_slot,
            )
        except BadInputError as error:
            if error.reason != TOO_LARGE or self._limit <= _PAGE_MIN:
                raise
            self._limit //= 4
            return
        if not infos:
            await self._end()
            return
        page = {info.signature for info in infos}
        if self._last is not None and (infos[0].slot > self._last.slot or not page.isdisjoint(self._last_page)):
            raise BadInputError(OTHER_ANSWER, "getSignaturesForAddress: a page that does not follow the last one")
        self._last, self._last_page = infos[-1], page
        self._newest_slot = max(self._newest_slot, infos[0].slot)
        self.complete = infos[-1].slot < self._from_slot
        self.found += [
            SignatureInfo(info.signature, info.slot)  # without the errors, which may be long and are not needed
            for info in infos
            if any(hole.from_slot <= info.slot <= hole.to_slot for hole in self._holes)
        ]

    async def _end(self) -> None:
        """Set `complete` at an empty page, unless the page is empty because the node does not know `before`.

        The node does not know it if `before` is from a dead fork or from another node's history, or is made up. The
        listing then starts again.
        """
        if self._last is not None and not await self._has(self._last.signature):
            self._last, self._last_page, self.found = None, set(), []
            raise TransientError("getSignaturesForAddress: an empty page after an unknown transaction")
        self.complete = True

    async def _has(self, signature: str) -> bool:
        """Return whether a node has a transaction."""
        try:
            answers = await self._rpc.get_signature_statuses([signature], history=True)
        except TransientError:
            raise
        except RpcError:  # some nodes refuse statuses, or those from their history
            return await self._rpc.get_transaction(signature, self._commitment) is not None
        return any(isinstance(answer.words[0], tuple) for answer in answers)


def shown_by(update: TransactionUpdate, lacks: Container[str]) -> TransactionUpdate | LogsUpdate | None:
    """Return the transaction, or only its logs if the node did not store its inner instructions.

    None if the logs are missing, too. The whole transaction may still arrive later, and is then not treated as a
    repeat.
    """
    if "innerInstructions" not in lacks:
        return update
    if update.logs is None:
        return None
    return LogsUpdate(
        source=update.source,
        feed=update.feed,
        received_ns=update.received_ns,
        slot=update.slot,
        signature=update.signature,
        err=update.err,
        logs=update.logs,
        commitment=update.commitment,
    )


def why(error: HeadraceError) -> str:
    """Return the error in words that may be published: no endpoint, and no text from the node."""
    if isinstance(error, RpcError):
        return f"the node refused ({error.code})"
    if isinstance(error, BadInputError):
        return f"the node's answer was unusable ({error.reason})"
    return "the node did not answer in time"


def ends_of(holes: Sequence[Hole]) -> tuple[int, int]:
    """Return the first and the last slot of some holes."""
    return min(hole.from_slot for hole in holes), max(hole.to_slot for hole in holes)

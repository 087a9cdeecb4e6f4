"""Asks, time and again, whether delivered transactions are in the blocks of their slots."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from headrace.model.errors import HeadraceError, TransientError
from headrace.runtime.clock import Clock
from headrace.solana.rpc import Rpc, RpcError
from headrace.sources.proofs import Answer, Proofs, Proven, Status, Waiting
from headrace.sources.settings import NodeSourceSettings

BATCH_MAX: Final = 256
"""Signatures of one `getSignatureStatuses` call, as nodes allow."""
CALLS_MAX: Final = 8
"""Calls of one round."""

_log = structlog.get_logger("source")


async def follow_proofs(
    rpc: Rpc | None,
    proofs: Proofs,
    head: Callable[[], int],
    publish: Callable[[Sequence[Proven]], Awaitable[None]],
    *,
    settings: NodeSourceSettings,
    clock: Clock,
) -> None:
    """Once per `confirm_s`, for ever: ask what is due, publish what is proven and what is given up."""
    while True:
        await clock.sleep(settings.confirm_s)
        if rpc is not None:
            due = proofs.due(BATCH_MAX * CALLS_MAX)
            for start in range(0, len(due), BATCH_MAX):
                await _ask(rpc, proofs, due[start : start + BATCH_MAX], publish)
        overdue = proofs.overdue(head(), clock.monotonic())
        if overdue:
            await publish(overdue)


async def _ask(
    rpc: Rpc, proofs: Proofs, asked: list[Waiting], publish: Callable[[Sequence[Proven]], Awaitable[None]]
) -> None:
    """One question. Where an endpoint refuses it, each half is asked by itself: one signature must not stop others."""
    again = any(waiting.noes for waiting in asked)
    try:
        answers = await _answers(rpc, [waiting.signature for waiting in asked], history=again)
    except TransientError as error:
        _log.debug("proof_failed", error=str(error))
        return
    except HeadraceError as error:
        _log.debug("proof_refused", error=str(error), signatures=len(asked))
        if len(asked) > 1:
            await _ask(rpc, proofs, asked[: len(asked) // 2], publish)
            await _ask(rpc, proofs, asked[len(asked) // 2 :], publish)
        return
    proven = proofs.answered(asked, answers)
    if proven:
        await publish(proven)


async def _answers(rpc: Rpc, signatures: list[str], *, history: bool) -> list[Answer]:
    """The answers of as many endpoints as it takes to find all signatures. A node without a history says so."""
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

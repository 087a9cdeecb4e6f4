"""Asks a node, time and again, which of the processed slots are on the confirmed chain."""

from collections.abc import Awaitable, Callable

import structlog

from headrace.model.errors import BadInputError, TransientError
from headrace.runtime.clock import Clock
from headrace.solana.rpc import Rpc, RpcError
from headrace.sources.confirm import Confirmations, Verdict
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings

_log = structlog.get_logger("source")


async def follow_verdicts(
    source: str,
    rpc: Rpc,
    confirmations: Confirmations,
    tell: Callable[[Verdict], Awaitable[None]],
    *,
    settings: RpcPubSubSettings,
    clock: Clock,
) -> None:
    """Once per `confirm_s`, for ever. A node that refuses may only lack these slots, so it is asked on, more rarely."""
    refused = False
    while True:
        await clock.sleep(settings.confirm_s)
        span = confirmations.span()
        if span is None:
            continue
        try:
            blocks = await rpc.get_blocks(*span)
        except (TransientError, BadInputError) as error:
            _log.debug("confirm_failed", error=str(error))
            continue
        except RpcError as error:
            if not refused:
                _log.warning("confirm_refused", source=source, error=str(error))
            refused = True
            await clock.sleep(settings.check_s)
            continue
        refused = False
        for verdict in confirmations.listed(blocks, span):
            await tell(verdict)

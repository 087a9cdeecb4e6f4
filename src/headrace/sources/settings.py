"""Settings of every source on chain nodes, whatever its transport."""

from typing import Annotated, ClassVar

import msgspec

from headrace.config import Setting
from headrace.model.updates import Commitment


class NodeSourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a source on nodes: subscriptions, time limits for connections, and what to fetch after a gap.

    A transport's settings extend these with its endpoints and timeouts.
    """

    ENDPOINTS: ClassVar[str] = ""
    """Name of the setting with the endpoints. If it is set, and `[sources] kinds` names no source, the source runs."""

    commitment: Annotated[
        Commitment,
        Setting("processed: soonest, promoted or taken back later; confirmed; finalized", env=("SOLANA_COMMITMENT",)),
    ] = "processed"
    subscriptions: Annotated[
        tuple[str, ...],
        msgspec.Meta(max_length=256),
        Setting(
            "logs:KEY, transactions:KEY, program:PROGRAM[?dataSize=N&memcmp=OFFSET:BASE58], account:PUBKEY, "
            "signature:SIGNATURE",
            env=("SUBSCRIPTIONS",),
            live=True,
        ),
    ] = ("logs:pump", "logs:pump_amm", "logs:commcoin")
    refused_retry_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting(
            "pause before a refused subscription is tried again, doubled each time", env=("SOLANA_REFUSED_RETRY_S",)
        ),
    ] = 30.0
    stall_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("no message, or no new slot, for so long", env=("SOLANA_STALL_S",))
    ] = 10.0
    stall_slots: Annotated[
        int, msgspec.Meta(ge=1), Setting("a standing stream may be behind getSlot", env=("SOLANA_STALL_SLOTS",))
    ] = 32
    quiet_feed_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("a logs feed silent for so long is compared with the ledger", env=("SOLANA_QUIET_FEED_S",)),
    ] = 60.0
    check_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("between cross-checks with getSlot", env=("SOLANA_CHECK_S",))
    ] = 5.0
    confirm_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("between questions for confirmed slots", env=("SOLANA_CONFIRM_S",))
    ] = 1.0
    backoff_initial_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("first pause before reconnecting", env=("SOLANA_BACKOFF_INITIAL_S",))
    ] = 0.25
    backoff_max_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("longest pause before reconnecting", env=("SOLANA_BACKOFF_MAX_S",))
    ] = 30.0
    gap_margin_slots: Annotated[
        int,
        msgspec.Meta(ge=0, le=1000),
        Setting("slots before the head at a loss that may be half delivered", env=("SOLANA_GAP_MARGIN_SLOTS",)),
    ] = 8
    refill_settle_slots: Annotated[
        int,
        msgspec.Meta(ge=0, le=1000),
        Setting("confirmed slots after a gap to wait for: nodes index late", env=("SOLANA_REFILL_SETTLE_SLOTS",)),
    ] = 8
    refill_signatures_max: Annotated[
        int,
        msgspec.Meta(ge=0),
        Setting("transactions fetched again for one gap", env=("SOLANA_REFILL_SIGNATURES_MAX",)),
    ] = 10_000
    refill_pages_max: Annotated[
        int,
        msgspec.Meta(ge=1),
        Setting("pages of 1,000 signatures listed for one gap", env=("SOLANA_REFILL_PAGES_MAX",)),
    ] = 1_000
    refill_page_s: Annotated[
        float,
        msgspec.Meta(ge=0),
        Setting("between pages: public nodes allow 4 calls of a method a second", env=("SOLANA_REFILL_PAGE_S",)),
    ] = 0.25
    refill_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("longest time spent on one gap", env=("SOLANA_REFILL_S",))
    ] = 300.0
    refill_parallel: Annotated[
        int, msgspec.Meta(ge=1, le=256), Setting("transactions fetched at once", env=("SOLANA_REFILL_PARALLEL",))
    ] = 8
    refill_retry_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("first pause before asking again", env=("SOLANA_REFILL_RETRY_S",))
    ] = 0.5
    transactions_per_s: Annotated[
        float,
        msgspec.Meta(ge=0.5, le=100_000),
        Setting(
            "getTransaction calls a second and endpoint for transactions:, at most; less where a node answers 429",
            env=("SOLANA_TRANSACTIONS_PER_S",),
        ),
    ] = 200.0
    transactions_batch: Annotated[
        int,
        msgspec.Meta(ge=1, le=100),
        Setting("getTransaction calls in one batch; 1 where a node takes none", env=("SOLANA_TRANSACTIONS_BATCH",)),
    ] = 20
    transactions_waiting_max: Annotated[
        int,
        msgspec.Meta(ge=1, le=1_000_000),
        Setting(
            "transactions that may wait to be fetched; the oldest beyond is a gap",
            env=("SOLANA_TRANSACTIONS_WAITING_MAX",),
        ),
    ] = 10_000
    transactions_wait_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("a transaction not fetched for so long is a gap", env=("SOLANA_TRANSACTIONS_WAIT_S",)),
    ] = 30.0

    def rpc_urls(self) -> tuple[str, ...]:
        """Return the HTTP endpoints of the same nodes, for a service whose `[rpc] urls` names none."""
        return ()

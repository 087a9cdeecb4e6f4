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
        float,
        msgspec.Meta(gt=0),
        Setting("seconds without a message or a new slot, after which a connection is ended", env=("SOLANA_STALL_S",)),
    ] = 10.0
    stall_slots: Annotated[
        int,
        msgspec.Meta(ge=1),
        Setting("most slots behind getSlot of a stream that gets no new slots", env=("SOLANA_STALL_SLOTS",)),
    ] = 32
    quiet_feed_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("seconds of silence after which a logs feed is compared with the ledger", env=("SOLANA_QUIET_FEED_S",)),
    ] = 60.0
    check_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("seconds between cross-checks with getSlot", env=("SOLANA_CHECK_S",))
    ] = 5.0
    confirm_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("seconds between requests for confirmed slots", env=("SOLANA_CONFIRM_S",))
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
        Setting(
            "slots before the head that count as not delivered when a connection ends", env=("SOLANA_GAP_MARGIN_SLOTS",)
        ),
    ] = 8
    refill_settle_slots: Annotated[
        int,
        msgspec.Meta(ge=0, le=1000),
        Setting(
            "confirmed slots to wait for after a gap, because nodes index late", env=("SOLANA_REFILL_SETTLE_SLOTS",)
        ),
    ] = 8
    refill_signatures_max: Annotated[
        int,
        msgspec.Meta(ge=0),
        Setting("most transactions fetched for one gap", env=("SOLANA_REFILL_SIGNATURES_MAX",)),
    ] = 10_000
    refill_pages_max: Annotated[
        int,
        msgspec.Meta(ge=1),
        Setting("most pages of 1,000 signatures listed for one gap", env=("SOLANA_REFILL_PAGES_MAX",)),
    ] = 1_000
    refill_page_s: Annotated[
        float,
        msgspec.Meta(ge=0),
        Setting(
            "seconds between pages; public nodes allow 4 calls of a method a second", env=("SOLANA_REFILL_PAGE_S",)
        ),
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
            "most getTransaction calls a second and endpoint for transactions:; fewer while a node answers 429",
            env=("SOLANA_TRANSACTIONS_PER_S",),
        ),
    ] = 200.0
    transactions_batch: Annotated[
        int,
        msgspec.Meta(ge=1, le=100),
        Setting("getTransaction calls in one batch; 1 if a node takes no batches", env=("SOLANA_TRANSACTIONS_BATCH",)),
    ] = 20
    transactions_waiting_max: Annotated[
        int,
        msgspec.Meta(ge=1, le=1_000_000),
        Setting(
            "most transactions that wait to be fetched; beyond it the oldest becomes a gap",
            env=("SOLANA_TRANSACTIONS_WAITING_MAX",),
        ),
    ] = 10_000
    transactions_wait_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting(
            "seconds after which a transaction that was not fetched becomes a gap", env=("SOLANA_TRANSACTIONS_WAIT_S",)
        ),
    ] = 30.0

    def rpc_urls(self) -> tuple[str, ...]:
        """Return the HTTP endpoints of the same nodes, for a service whose `[rpc] urls` names none."""
        return ()

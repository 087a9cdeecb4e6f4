"""Settings of the execution of orders."""

from typing import Annotated

import msgspec

from headrace.config import SameAs, Setting
from headrace.database.place import Place, place_of

_Ms = msgspec.Meta(ge=1)


class ExecutionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[orders]`. Concurrency and rate are `[core] queue_…`, the names that earlier users know."""

    enabled: Annotated[
        bool, Setting("take orders and execute them, on mock venues and a mock chain", env=("ORDERS_ENABLED",))
    ] = True
    work_here: Annotated[
        bool, Setting("execute orders in this process too; off: `headrace worker` does", env=("ORDERS_WORK_HERE",))
    ] = True
    venues: Annotated[
        tuple[str, ...],
        msgspec.Meta(min_length=1),
        Setting("venues that are asked for quotes, by their names in the register", env=("ORDER_VENUES",)),
    ] = ("meteora", "raydium")
    quote_venues: Annotated[
        tuple[str, ...],
        Setting(
            "venues that `GET /api/quote` asks, by their names in the register; empty: those of orders",
            env=("QUOTE_VENUES",),
        ),
    ] = ()
    chain: Annotated[
        str, Setting("chain that orders are executed on, by its name in the register", env=("ORDER_CHAIN",))
    ] = "mock"
    file: Annotated[
        str,
        Setting("SQLite file of the orders if DATABASE_URL names no database", env=("ORDERS_FILE",), kind="file"),
    ] = "headrace-orders.db"
    database_url: Annotated[str | None, SameAs("core.database_url")] = None
    lease_ms: Annotated[
        int,
        msgspec.Meta(ge=100),
        Setting("time after which other workers take over a silent worker's orders", env=("ORDER_LEASE_MS",)),
    ] = 10_000
    scan_ms: Annotated[
        int, _Ms, Setting("how often a worker looks for orders whose events it missed", env=("ORDER_SCAN_MS",))
    ] = 500
    quote_timeout_ms: Annotated[
        int, _Ms, Setting("longest wait for a venue's quote; a slower venue is left out", env=("QUOTE_TIMEOUT_MS",))
    ] = 2_000
    quote_topics_max: Annotated[
        int,
        msgspec.Meta(ge=0, le=1_000),
        Setting("most topics `quotes:…` that have subscribers at once; 0: none", env=("QUOTE_TOPICS_MAX",)),
    ] = 16
    quote_topic_ms: Annotated[
        int, _Ms, Setting("shortest time between two quotes on one topic", env=("QUOTE_TOPIC_MS",))
    ] = 200
    sign_first: Annotated[
        bool,
        Setting(
            "get quotes and sign before an order is stored, where the worker is at ease: one commit less, but commands"
            " of one connection may be stored in another order than they came",
            env=("ORDERS_SIGN_FIRST",),
        ),
    ] = False
    tries_max: Annotated[int, msgspec.Meta(ge=1, le=10), Setting("most tries of one order", env=("ORDER_TRIES",))] = 3
    retry_ms: Annotated[
        int, _Ms, Setting("pause before the second try; doubles each time, with jitter", env=("ORDER_RETRY_MS",))
    ] = 1_000
    resend_ms: Annotated[int, _Ms, Setting("pause before the same bytes are sent again", env=("ORDER_RESEND_MS",))] = (
        2_000
    )
    look_ms: Annotated[
        int, _Ms, Setting("longest pause between two requests for a transaction's status", env=("ORDER_LOOK_MS",))
    ] = 1_000
    finality_ms: Annotated[
        int, _Ms, Setting("how often executed orders are checked until they are final", env=("ORDER_FINALITY_MS",))
    ] = 1_000
    kept_s: Annotated[
        float,
        msgspec.Meta(ge=0),
        Setting(
            "an order that is over and final is reduced to its outcome after so long, by the time that the database has"
            " seen; 0: never",
            env=("ORDERS_KEPT_S",),
        ),
    ] = 0.0
    amount_max: Annotated[
        int, msgspec.Meta(ge=1), Setting("most base units of one order", env=("ORDER_AMOUNT_MAX",))
    ] = 2**64 - 1
    amount_limits: Annotated[
        tuple[str, ...],
        Setting(
            "most base units of one order by token (`SOL=5000000000`), or for one user (`ann:SOL=9000000000`)",
            env=("ORDER_AMOUNT_LIMITS",),
        ),
    ] = ()
    resting_per_user: Annotated[
        int,
        msgspec.Meta(ge=0),
        Setting("limit and stop orders of one user that may wait at once; 0: any", env=("RESTING_ORDERS_PER_USER",)),
    ] = 1_000
    resting_in_all: Annotated[
        int,
        msgspec.Meta(ge=0),
        Setting("limit and stop orders of all users that may wait at once; 0: any", env=("RESTING_ORDERS",)),
    ] = 10_000
    orders_per_minute_per_user: Annotated[
        int, msgspec.Meta(ge=0), Setting("orders that one user may place a minute; 0: any", env=("ORDERS_PER_USER",))
    ] = 0

    @property
    def place(self) -> Place:
        """Return where orders are stored."""
        return place_of(self.database_url, self.file)

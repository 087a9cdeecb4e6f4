"""Port, settings and register of histories; a history keeps the chain's facts on disk and answers queries by time."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.adapters import Register
from headrace.config import SameAs, Setting
from headrace.database.place import Place, place_of
from headrace.history.candles import Candle, CandleKey
from headrace.history.rows import (
    CandleQuery,
    Extent,
    GapQuery,
    Page,
    SlotQuery,
    StoredGap,
    StoredSlot,
    StoredToken,
    StoredTrade,
    TokenQuery,
    TradeQuery,
)
from headrace.model.errors import TransientError
from headrace.model.facts import Dead, GapDeclared, Proof, SlotChanged, TokenCreated, Traded

Kept: TypeAlias = Traded | TokenCreated | SlotChanged | GapDeclared | Dead | Proof
"""Facts from the update flow that a history keeps."""

KEPT: Final = (Traded, TokenCreated, SlotChanged, GapDeclared, Dead, Proof)


class HistorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[history]`: where trades, tokens, slots and gaps are kept, and how much of them."""

    file: Annotated[
        str,
        Setting(
            "SQLite file of the history, if DATABASE_URL names no PostgreSQL; its segments, of about 500,000 trades,"
            " are beside it",
            env=("HISTORY_FILE",),
            kind="file",
        ),
    ] = "headrace-history.db"
    database_url: Annotated[str | None, SameAs("core.database_url")] = None
    pool_max: Annotated[
        int,
        msgspec.Meta(ge=1, le=1_000),
        Setting("most connections to PostgreSQL for queries of the history", env=("DATABASE_POOL_MAX",)),
    ] = 20
    pool_idle_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("time after which such a connection is closed if it is not used", env=("DATABASE_POOL_IDLE_S",)),
    ] = 30.0
    connect_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("longest wait for a connection of the history to PostgreSQL", env=("DATABASE_CONNECT_S",)),
    ] = 2.0
    bytes_max: Annotated[
        int,
        msgspec.Meta(ge=16 * 1024 * 1024),
        Setting("bytes of all files or tables; beyond, the oldest segment goes", env=("HISTORY_MAX_BYTES",)),
    ] = 2 * 1024**3
    age_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("age, by the newest trade, from which a whole segment goes", env=("HISTORY_AGE_S",)),
    ] = 30 * 86_400
    buffer_bytes: Annotated[
        int,
        msgspec.Meta(ge=65_536),
        Setting(
            "bytes that wait in memory to be written; what fits neither there nor in the file is declared as a gap",
            env=("HISTORY_BUFFER_BYTES",),
        ),
    ] = 32 * 1024 * 1024
    spill_bytes: Annotated[
        int,
        msgspec.Meta(ge=0),
        Setting(
            "bytes of the file beside HISTORY_FILE in which facts wait while the database is away; 0: no file",
            env=("HISTORY_SPILL_BYTES",),
        ),
    ] = 512 * 1024 * 1024

    @property
    def place(self) -> Place:
        """The database that keeps the history. A SQLite file that a URL names has orders; the history has its own."""
        place = place_of(self.database_url, self.file)
        return Place("sqlite", self.file) if place.kind == "sqlite" else place


class Written(NamedTuple):
    """Result of a write: the candles that changed, and the slots of facts that can't be stored."""

    candles: Sequence[CandleKey]
    refused: Sequence[int] = ()


class History(Protocol):
    """Store of facts in the order of slots. Facts that a fork voids are removed.

    Identity: a fact is identified by its event's id. Writing a stored fact changes nothing, except for a trade that
    comes `again`, now with its mints. Settlement: `Dead` removes the facts of its slot whose origin was not certain,
    `Proof` removes the facts of absent signatures. The remaining trades then determine the candles.
    Atomicity: a write stores all facts, or does so when it is repeated after a TransientError. Durability: written
    facts survive the end of the process. A crash of the machine may lose the last seconds, and `extent` shows that.
    Bounds: the oldest slots are deleted, many at a time; `extent` returns the first slot that is kept.
    Queries: a query sees all writes that returned before it. It returns a page of at most `limit` items, for bounded
    work. A page may have fewer items although more follow; then `next` is set.
    Errors: each method raises TransientError while the database can't be used.
    """

    on_trouble: Callable[[TransientError], None]
    """Function called on the event loop when the database could not be used."""

    async def write(self, facts: Sequence[Kept]) -> Written:
        """Store these facts in this order. Calls run one at a time."""

    async def clear(self) -> None:
        """Delete everything."""

    async def extent(self) -> Extent:
        """Return the first and the last slot of the history."""

    async def trades(self, query: TradeQuery) -> Page[StoredTrade]:
        """Return trades, newest first."""

    async def tokens(self, query: TokenQuery) -> Page[StoredToken]:
        """Return tokens, newest first."""

    async def candles(self, query: CandleQuery) -> Page[Candle]:
        """Return candles that have trades, oldest first."""

    async def gaps(self, query: GapQuery) -> Page[StoredGap]:
        """Return the gaps that overlap the range of slots, the most recently declared first."""

    async def slots(self, query: SlotQuery) -> Page[StoredSlot]:
        """Return slots, newest first."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError if a fact could not be stored now."""

    async def close(self) -> None:
        """Finish pending calls and close the database. Later calls raise TransientError."""


HISTORIES: Final[Register[History]] = Register(
    "history",
    {
        "postgres": "headrace.history.postgres.adapter:PostgresHistory",
        "sqlite": "headrace.history.sqlite.adapter:SqliteHistory",
    },
    HistorySettings,
)
"""All histories. The `kind` of `HistorySettings.place` names the one in use."""

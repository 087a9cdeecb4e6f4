"""What happened on the chain, kept on disk and asked by time: port, settings and register."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.adapters import Register
from headrace.config import Setting
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
"""What a history takes of the news of the update flow."""

KEPT: Final = (Traded, TokenCreated, SlotChanged, GapDeclared, Dead, Proof)


class HistorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[history]`: where trades, tokens, slots and gaps are kept, and how much of them."""

    file: Annotated[
        str,
        Setting(
            "SQLite file of the history; its segments, of about 500,000 trades each, are beside it",
            env=("HISTORY_FILE",),
            kind="file",
        ),
    ] = "headrace-history.db"
    bytes_max: Annotated[
        int,
        msgspec.Meta(ge=16 * 1024 * 1024),
        Setting("bytes of all files of the history; beyond, the oldest segment goes", env=("HISTORY_MAX_BYTES",)),
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
            "bytes that wait to be written; what does not fit is declared as a gap of the feed `history`",
            env=("HISTORY_BUFFER_BYTES",),
        ),
    ] = 32 * 1024 * 1024


class Written(NamedTuple):
    """Outcome of a write: the candles that changed, and the slots of facts that can't be stored."""

    candles: Sequence[CandleKey]
    refused: Sequence[int] = ()


class History(Protocol):
    """Keeps facts in order of slots, and takes back what forks take back.

    Identity: a fact is known by its event's id; the same fact again changes nothing, but for a trade that comes `again`
    with its mints. Settlement: `Dead` takes back the rows of its slot whose origin was not certain, `Proof` those of
    absent signatures; candles are then made anew from the trades that are left.
    Atomicity: a write is whole, or is so once it is repeated after TransientError. Durability: what was
    written outlives the process; a failure of the machine may take the last seconds, which `extent` then does not have.
    Bounds: the oldest slots go, many at a time; `extent` says where the history begins.
    Queries answer whole pages, at most `limit` items and of bounded work, so a page may have fewer items than `limit`
    though more follow: `next` says so. They see all writes that returned before.
    Each verb raises TransientError when the database is away.
    """

    on_trouble: Callable[[TransientError], None]
    """Called on the event loop when the database could not be used."""

    async def write(self, facts: Sequence[Kept]) -> Written:
        """Keep these facts, in their order. One writer at a time: the next call waits for the last."""

    async def clear(self) -> None:
        """Forget everything."""

    async def extent(self) -> Extent:
        """Return the first and the last slot of which anything is kept."""

    async def trades(self, query: TradeQuery) -> Page[StoredTrade]:
        """Return trades, newest first."""

    async def tokens(self, query: TokenQuery) -> Page[StoredToken]:
        """Return tokens, newest first."""

    async def candles(self, query: CandleQuery) -> Page[Candle]:
        """Return the candles in which anything was traded, oldest first."""

    async def gaps(self, query: GapQuery) -> Page[StoredGap]:
        """Return the gaps that touch the slots, in the order in which they were first declared, newest first."""

    async def slots(self, query: SlotQuery) -> Page[StoredSlot]:
        """Return slots, newest first."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError when a fact could not be kept now."""

    async def close(self) -> None:
        """Finish what waits and release what the history holds; later calls raise TransientError."""


HISTORIES: Final[Register[History]] = Register(
    "history", {"sqlite": "headrace.history.sqlite.adapter:SqliteHistory"}, HistorySettings
)
"""All histories."""

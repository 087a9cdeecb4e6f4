"""The queries of a history, each passed on to the tables that answer it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from headrace.history.candles import Candle
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


class Queries(ABC):
    """The queries of `History`, for an adapter whose tables have methods of the same names."""

    @abstractmethod
    async def _read(self, work: Callable[[Any], Any]) -> Any:
        """Return the answer of `work`, which gets the tables. Raises the errors of the queries of `History`."""

    async def extent(self) -> Extent:
        found: Extent = await self._read(lambda tables: tables.extent())
        return found

    async def trades(self, query: TradeQuery) -> Page[StoredTrade]:
        page: Page[StoredTrade] = await self._read(lambda tables: tables.trades(query))
        return page

    async def tokens(self, query: TokenQuery) -> Page[StoredToken]:
        page: Page[StoredToken] = await self._read(lambda tables: tables.tokens(query))
        return page

    async def candles(self, query: CandleQuery) -> Page[Candle]:
        page: Page[Candle] = await self._read(lambda tables: tables.candles(query))
        return page

    async def gaps(self, query: GapQuery) -> Page[StoredGap]:
        page: Page[StoredGap] = await self._read(lambda tables: tables.gaps(query))
        return page

    async def slots(self, query: SlotQuery) -> Page[StoredSlot]:
        page: Page[StoredSlot] = await self._read(lambda tables: tables.slots(query))
        return page

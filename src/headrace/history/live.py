"""Publishes live candles on the topics `candles:<mint>:<quote>:<interval>`, after they are stored."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from headrace.bus import Writer
from headrace.bus.lanes import publish_until_answered
from headrace.history import History
from headrace.history.candles import INTERVALS_S, Candle, CandleKey, shown
from headrace.history.rows import CandleQuery
from headrace.model.errors import TransientError
from headrace.model.events import Publication
from headrace.model.topics import CANDLES_PREFIX
from headrace.runtime.clock import Clock

PAUSE_S: Final = 0.5
PENDING_MAX: Final = 10_000
"""Maximum number of candles that wait to be published. If more wait, the oldest are not published."""

_encode: Final = msgspec.json.Encoder().encode


class _Due(NamedTuple):
    """Topic and start of a candle that must be published."""

    topic: str
    time_s: int


class LiveCandles:
    """Publisher of changed candles, which it reads from the history. Topics without listeners are left out.

    A message has the whole candle and replaces earlier messages with the same `time`. If a fork voided all trades of a
    candle, its `trades` is 0. `audience` returns the topics that have listeners.
    """

    def __init__(self, history: History, writer: Writer, clock: Clock, audience: Callable[[], Iterable[str]]) -> None:
        self._history, self._writer, self._clock, self._audience = history, writer, clock, audience
        self._due: dict[_Due, None] = {}
        self._wake = asyncio.Event()

    def changed(self, keys: Sequence[CandleKey]) -> None:
        """Queue the candles that contain these changed minutes, on all topics with listeners."""
        wanted: dict[tuple[str, str], list[str]] = {}
        for topic in self._audience():
            if topic.startswith(CANDLES_PREFIX):
                mint, quote, _ = topic.removeprefix(CANDLES_PREFIX).split(":")
                wanted.setdefault((mint, quote), []).append(topic)
        if not wanted:
            return
        for mint, quote, time_s in keys:
            for topic in wanted.get((mint, quote), ()):
                interval_s = INTERVALS_S[topic.rpartition(":")[2]]
                self._due[_Due(topic, time_s // interval_s * interval_s)] = None
        while len(self._due) > PENDING_MAX:
            del self._due[next(iter(self._due))]
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, {}
            for each in due:
                await self._publish(each)

    async def _publish(self, due: _Due) -> None:
        mint, quote, interval = due.topic.removeprefix(CANDLES_PREFIX).split(":")
        length_s = INTERVALS_S[interval]
        query = CandleQuery(mint, quote, length_s, due.time_s, due.time_s + length_s, limit=1)
        try:
            candles = (await self._history.candles(query)).items
        except TransientError:
            await self._clock.sleep(PAUSE_S)
            self._due[due] = None
            self._wake.set()
            return
        body = _body(due.topic, candles[0] if candles else Candle(due.time_s))
        await publish_until_answered(self._writer, [Publication.on(due.topic, "event", body)], self._clock)


def _body(topic: str, candle: Candle) -> bytes:
    """Return the body of a candle's message. A later message with the same event id replaces it."""
    mint, quote, interval = topic.removeprefix(CANDLES_PREFIX).split(":")
    data = {"type": "Candle", "mint": mint, "quote_mint": quote, "interval": interval, **shown(candle)}
    return b'"event_id":%b,"data":%b' % (_encode(f"{topic}:{candle.time_s}"), _encode(data))

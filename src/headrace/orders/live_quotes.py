"""Publishes quotes on the topics `quotes:<input mint>:<output mint>:<amount>`, each while the topic has subscribers."""

import asyncio
from collections.abc import Hashable
from typing import Any, Final

import msgspec

from headrace.bus import Writer
from headrace.bus.lanes import publish_until_answered
from headrace.model.errors import RequestError
from headrace.model.events import Label, Publication
from headrace.model.orders import OrderRefused
from headrace.model.states import state_key
from headrace.model.topics import QUOTES_PREFIX
from headrace.orders.intake import Intake
from headrace.orders.settings import ExecutionSettings
from headrace.protocol.codes import ErrorCode
from headrace.protocol.orders import offer_view
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

AT_ONCE: Final = 8
"""Number of topics whose quotes are computed at the same time."""

AGAIN_S: Final = 1.0
"""Seconds after which venues that gave no quote are asked again."""

_encode: Final = msgspec.json.Encoder().encode


class _Quoted:
    """A topic with subscribers: its question, and the content of its last message."""

    def __init__(self, topic: str) -> None:
        mint_in, mint_out, amount = topic.removeprefix(QUOTES_PREFIX).split(":")
        self.topic = topic
        self.asked: dict[str, str] = {"inputMint": mint_in, "outputMint": mint_out, "amount": amount}
        self.revision: Hashable = None
        self.again_at_s: float | None = 0.0
        """Time at which venues that gave no quote are asked again; None: as soon as their revision changes."""
        self.content: dict[str, Any] | None = None
        """Content of the last message, but for its slot."""

    def is_due(self, revision: Hashable, now_s: float) -> bool:
        """Return whether the quote may have changed since the last question."""
        return revision != self.revision if self.again_at_s is None else now_s >= self.again_at_s


class LiveQuotes:
    """Quotes of all topics that have subscribers, at most `quote_topics_max` topics.

    A quote is computed again once the revision of the venues has changed, at most once in `quote_topic_ms`, so that
    changes in quick succession share one message. A quote that differs from the last message in its slot alone is not
    published.
    """

    def __init__(
        self, intake: Intake, writer: Writer, settings: ExecutionSettings, clock: Clock, metrics: Metrics
    ) -> None:
        self._intake, self._writer, self._clock = intake, writer, clock
        self._topics_max, self._pause_s = settings.quote_topics_max, settings.quote_topic_ms / 1000
        self._topics: dict[str, _Quoted] = {}
        self._wanted = asyncio.Event()
        metrics.gauge("quote_topics", "Topics whose quotes are published").set_function(lambda: len(self._topics))
        self._published = metrics.counter("quote_messages", "Quotes published on topics")

    def check(self, topic: str) -> None:
        """Raise RequestError if no quotes can be published on another topic with this name.

        Raises RequestError 106 beyond the most topics, and 107 for a question that no venue can answer.
        """
        if len(self._topics) >= self._topics_max:
            message = (
                f"at most {self._topics_max} topics of quotes at once; another must lose its last subscriber first"
            )
            raise RequestError(ErrorCode.LIMIT, message)
        self._intake.check_offer(_Quoted(topic).asked)

    def begin(self, topic: str) -> None:
        """Publish quotes on a topic that has its first subscriber; the first one at once. Raises as `check` does."""
        self.check(topic)
        self._topics[topic] = _Quoted(topic)
        self._wanted.set()

    def end(self, topic: str) -> None:
        """Publish nothing more on a topic that lost its last subscriber."""
        del self._topics[topic]
        if not self._topics:
            self._wanted.clear()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._wanted.wait()
            revision, now_s = self._intake.revision(), self._clock.monotonic()
            due = [quoted for quoted in self._topics.values() if quoted.is_due(revision, now_s)]
            for start in range(0, len(due), AT_ONCE):
                await self._publish(due[start : start + AT_ONCE], revision)
            await self._clock.sleep(self._pause_s)

    async def _publish(self, due: list[_Quoted], revision: Hashable) -> None:
        """Compute quotes, and publish those that changed on topics that still have subscribers."""
        publications = []
        answers = await asyncio.gather(*[self._ask(quoted, revision) for quoted in due])
        for quoted, (slot, content) in zip(due, answers, strict=True):
            if content != quoted.content and self._topics.get(quoted.topic) is quoted:
                quoted.content = content
                publications.append(_publication(quoted.topic, slot, content))
        if publications:
            await publish_until_answered(self._writer, publications, self._clock)
            self._published.inc(len(publications))

    async def _ask(self, quoted: _Quoted, revision: Hashable) -> tuple[int | None, dict[str, Any]]:
        """Return the slot and the content of the topic's message now."""
        quoted.revision, quoted.again_at_s = revision, None
        try:
            view = offer_view(*await self._intake.offer(quoted.asked))
        except OrderRefused as refused:
            quoted.again_at_s = self._clock.monotonic() + AGAIN_S
            mints = {name: quoted.asked[name] for name in ("inputMint", "outputMint")}
            amount, left_out = quoted.asked["amount"], dict(refused.fields)
            return None, {"type": "NoQuote", **mints, "amountIn": amount, "reason": refused.reason, "leftOut": left_out}
        return view.pop("slot"), {"type": "Quote", **view}


def _publication(topic: str, slot: int | None, content: dict[str, Any]) -> Publication:
    """Return the message of a topic. A later message has the same event id and replaces this one."""
    data = {**content, "slot": slot}
    key = state_key(topic, data)
    label = None if key is None else Label(key, topic, slot, certain=True)
    return Publication.on(topic, "event", b'"event_id":%b,"data":%b' % (_encode(topic), _encode(data)), label)

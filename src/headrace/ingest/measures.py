"""Count and time the pipeline: cheap on the hot path, and exported when `/metrics` is read."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.decoders.registry import Programs
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

SAMPLED: Final = 64
"""One update in this many is timed."""

STAGE_BUCKETS_S: Final = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 0.05)


class Measures(Collector):
    """Plain counts, each a dict from label to number, and sampled stage times.

    `received` by kind of update; `published` by kind of message; `bad` by reason; `skipped` (duplicates, facts of dead
    slots) by kind of update and reason. `unread` by program, event and reason: events that were published without their
    trade or token. `gaps` by source and published state: a refill with something unreadable does not count as
    backfilled.
    """

    def __init__(self, programs: Programs, core: str, clock: Clock, metrics: Metrics) -> None:
        self.received: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.skipped: Counter[tuple[str, str]] = Counter()
        self.unread: Counter[tuple[str, str, str]] = Counter()
        self.gaps: Counter[tuple[str, str]] = Counter()
        self._programs, self._core, self._clock = programs, core, clock
        self._stages = metrics.histogram(
            "ingest_stage_seconds", "time per update and stage (sampled)", ("stage",), STAGE_BUCKETS_S
        )
        self._updates = 0
        self._marked: float | None = None
        metrics.registry.register(self)

    def begin(self) -> None:
        """Begin an update; one in SAMPLED is timed."""
        self._updates += 1
        self._marked = None if self._updates % SAMPLED else self._clock.monotonic()

    def passed(self, stage: str) -> None:
        """Note that the update has passed this stage."""
        if self._marked is not None:
            now = self._clock.monotonic()
            self._stages.labels(stage).observe(now - self._marked)
            self._marked = now

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for name, about, label, counts in (
            ("received", "updates from sources", "kind", self.received),
            ("published", "messages to the bus", "kind", self.published),
            ("bad", "updates that could not be used", "reason", self.bad),
        ):
            family = CounterMetricFamily(f"headrace_ingest_{name}", about, labels=[label])
            for value, count in list(counts.items()):  # runs in another thread
                family.add_metric([value], count)
            yield family
        skipped = CounterMetricFamily(
            "headrace_ingest_skipped", "updates left out on purpose", labels=["kind", "reason"]
        )
        for (kind, reason), count in list(self.skipped.items()):
            skipped.add_metric([kind, reason], count)
        yield skipped
        unread = CounterMetricFamily(
            "headrace_ingest_unread",
            "events published without the trade or token that they are, because it could not be read: alarm on any",
            labels=["program", "event", "reason"],
        )
        for (program, event, reason), count in list(self.unread.items()):
            unread.add_metric([program, event, reason], count)
        yield unread
        gaps = CounterMetricFamily(
            "headrace_source_gaps", "Gaps of a source by the state they reached", labels=["source", "state"]
        )
        for (source, state), count in list(self.gaps.items()):
            gaps.add_metric([source, state], count)
        yield gaps
        core = GaugeMetricFamily("headrace_ingest_core", "The core that decodes", labels=["core"])
        core.add_metric([self._core], 1)
        yield core
        yield from self._drift()

    def _drift(self) -> Iterator[Metric]:
        """Yield the metrics of bytes that do not fit the programs' IDLs."""
        labels = ["program", "kind"]
        families = {
            name: CounterMetricFamily(f"headrace_drift_{name}", about, labels=labels)
            for name, about in (
                ("decoded", "parts read: the yield"),
                ("unknown", "discriminators that the IDL lacks"),
                ("longer", "parts with bytes after the layout's end"),
                ("leftover_bytes", "bytes after the layouts' ends"),
                ("short", "parts that lack trailing fields"),
                ("variants", "enum variants that the IDL lacks"),
                ("invalid", "bools and option tags that are neither 0 nor 1"),
                ("unreadable", "parts with a value whose type the IDL does not tell"),
            )
        }
        for program, kind, counts in self._programs.drift:
            if counts.decoded or counts.unknown:
                for name, family in families.items():
                    family.add_metric([program, kind], getattr(counts, name))
        yield from families.values()

"""Prometheus metrics for market statistics, taken from the statistics' counters on each scrape of `/metrics`."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.market.stats import Stats


class MarketMetrics(Collector):
    """All metrics whose names begin with `headrace_market_`."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for name, about, label, counts in (
            ("trades", "trades given to the market statistics; retracted trades were applied before", "outcome",
             self._stats.trades),
            ("messages", "messages about mints", "type", self._stats.messages),
        ):  # fmt: skip
            family = CounterMetricFamily(f"headrace_market_{name}", about, labels=[label])
            for value, count in list(counts.items()):  # a copy, because another thread counts at the same time
                family.add_metric([value], count)
            yield family
        about = "series forgotten to keep within the bounds"
        yield CounterMetricFamily("headrace_market_forgotten", about, value=self._stats.forgotten)
        yield GaugeMetricFamily("headrace_market_series", "mints held, once for each quote", value=self._stats.held)
        yield GaugeMetricFamily(
            "headrace_market_buckets", "minutes with trades, held one by one", value=self._stats.minutes
        )

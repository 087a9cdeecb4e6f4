"""Counters, gauges and histograms for `/metrics`, in a registry that each process (and each test) owns."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

LATENCY_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Makes metrics named `headrace_<name>`. Asking twice for a name gives the same metric."""

    content_type: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, *, process: bool = False) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)

    def counter(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Counter:
        """A count that only grows; exported as `headrace_<name>_total`."""
        if name not in self._counters:
            self._counters[name] = Counter(f"headrace_{name}", about, labels, registry=self.registry)
        return self._counters[name]

    def gauge(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
        """A value that goes up and down."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(f"headrace_{name}", about, labels, registry=self.registry)
        return self._gauges[name]

    def histogram(
        self, name: str, about: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """A distribution; name it with its unit (`…_seconds`)."""
        if name not in self._histograms:
            self._histograms[name] = Histogram(
                f"headrace_{name}", about, labels, registry=self.registry, buckets=buckets
            )
        return self._histograms[name]

    def render(self) -> bytes:
        """The Prometheus text exposition of everything registered."""
        return generate_latest(self.registry)

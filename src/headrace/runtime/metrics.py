"""Counters, gauges and histograms for `/metrics`, in a registry that each process (and each test) owns."""

from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

M = TypeVar("M", Counter, Gauge, Histogram)

LATENCY_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series for each counter would double the page


class Metrics:
    """Creates metrics named `headrace_<name>`. A second call with the same name returns the same metric.

    Labels must come from small, known sets (a program's name, a reason), never from a client or the chain.
    """

    content_type: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, *, process: bool = False) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, tuple[tuple[str, ...], Counter | Gauge | Histogram]] = {}
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)

    def counter(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Counter:
        """Return a counter, which only grows; exported as `headrace_<name>_total`."""
        return self._known(Counter, name, labels) or self._keep(
            name, labels, Counter(f"headrace_{name}", about, labels, registry=self.registry)
        )

    def gauge(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
        """Return a gauge, whose value may rise and fall."""
        return self._known(Gauge, name, labels) or self._keep(
            name, labels, Gauge(f"headrace_{name}", about, labels, registry=self.registry)
        )

    def histogram(
        self, name: str, about: str, labels: tuple[str, ...] = (), buckets: tuple[float, ...] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """Return a histogram. Its name ends with the unit (`…_seconds`)."""
        return self._known(Histogram, name, labels) or self._keep(
            name, labels, Histogram(f"headrace_{name}", about, labels, registry=self.registry, buckets=buckets)
        )

    def render(self) -> bytes:
        """Return the Prometheus text exposition of everything registered."""
        return generate_latest(self.registry)

    def _known(self, kind: type[M], name: str, labels: tuple[str, ...]) -> M | None:
        """Return the metric of this name. Raises ValueError if the metric is of another kind or has other labels."""
        if name not in self._made:
            return None
        made_labels, made = self._made[name]
        if not isinstance(made, kind) or made_labels != labels:
            raise ValueError(f"metric {name} is a {type(made).__name__} with labels {made_labels}, asked with {labels}")
        return made

    def _keep(self, name: str, labels: tuple[str, ...], metric: M) -> M:
        self._made[name] = (labels, metric)
        return metric

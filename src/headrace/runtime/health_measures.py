"""The states of `Health` as metrics, computed each time `/metrics` is read."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headrace.runtime.health import Health


class HealthMeasures(Collector):
    """`headrace_part_up` and `headrace_ready`: the same states as in `/health/ready`."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        parts = self._health.components()  # a copy: metrics are read in another thread
        up = GaugeMetricFamily(
            "headrace_part_up", "Whether a part is ready: 1, or 0; required or not", labels=["part", "required"]
        )
        for name, state in parts.items():
            up.add_metric([name, str(state.required).lower()], float(state.ready))
        yield up
        ready = all(state.ready for state in parts.values() if state.required)
        yield GaugeMetricFamily("headrace_ready", "Whether every required part is ready: 1, or 0", value=float(ready))

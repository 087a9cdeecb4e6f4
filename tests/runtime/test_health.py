"""Readiness is that of the required components; details are safe to show."""

from headrace.runtime.clock import ManualClock
from headrace.runtime.health import ComponentHealth, Health
from headrace.runtime.health_measures import HealthMeasures
from headrace.runtime.metrics import Metrics


def is_ready(health: Health) -> bool:
    return health.ready


def test_required_components_decide() -> None:
    health = Health()
    health.report("bus", ready=True)
    health.report("source", ready=False, detail="connecting", required=False)
    assert is_ready(health)
    health.report("source", ready=False, detail="connecting")
    assert not is_ready(health)
    health.forget("source")
    health.forget("never there")
    assert is_ready(health)
    assert health.components() == {"bus": ComponentHealth(True, "", True, since_ms=health.components()["bus"].since_ms)}


def test_components_are_sorted_and_a_copy() -> None:
    health = Health()
    for name in ("c", "a", "b"):
        health.report(name, ready=True)
    assert list(health.components()) == ["a", "b", "c"]
    health.components().clear()
    assert len(health.components()) == 3


def test_detail_is_one_short_redacted_line() -> None:
    health = Health()
    url = "wss://node.example/0123456789abcdef0123456789abcdef01234567/"
    health.report("source", ready=False, detail=f"cannot reach\n{url}: refused\t" + "x" * 1000)
    detail = health.components()["source"].detail
    assert detail.startswith("cannot reach wss://node.example/***/: refused xxx")
    assert len(detail) == 200


async def test_since_when_and_why_it_was_last_not_ready() -> None:
    clock = ManualClock(wall_ns=1_000_000_000)
    health = Health(clock)
    health.report("bus", ready=True)
    assert health.components()["bus"] == ComponentHealth(True, "", True, 1000, None, None)
    await clock.advance(1)
    health.report("bus", ready=True, detail="quick")
    assert health.components()["bus"].since_ms == 1000, "nothing changed"
    health.report("bus", ready=False, detail="away")
    await clock.advance(1)
    health.report("bus", ready=False, detail="away")
    assert health.components()["bus"] == ComponentHealth(False, "away", True, 2000, "away", 2000)
    health.report("bus", ready=False, detail="gone")
    assert health.components()["bus"] == ComponentHealth(False, "gone", True, 2000, "gone", 3000)
    await clock.advance(1)
    health.report("bus", ready=True)
    assert health.components()["bus"] == ComponentHealth(True, "", True, 4000, "gone", 3000)


def test_metrics_say_what_the_board_says() -> None:
    health, metrics = Health(), Metrics()
    metrics.registry.register(HealthMeasures(health))
    health.report("bus", ready=True)
    health.report("venue:a", ready=False, required=False)
    assert b'headrace_part_up{part="venue:a",required="false"} 0.0' in metrics.render()
    assert b"headrace_ready 1.0" in metrics.render()
    health.report("bus", ready=False)
    assert b'headrace_part_up{part="bus",required="true"} 0.0' in metrics.render()
    assert b"headrace_ready 0.0" in metrics.render()

"""Readiness is that of the required components; details are safe to show."""

import pytest

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
    assert detail.startswith("cannot reach wss://*** refused xxx")
    assert len(detail) == 200


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        (
            "Error 111 connecting to localhost:6379. Connection refused.",
            "Error 111 connecting to ***. Connection refused.",
        ),
        ("Error -2 connecting to redis.internal:6379.", "Error -2 connecting to ***."),
        ("[Errno 111] Connect call failed ('10.1.2.3', 5432)", "[Errno 111] Connect call failed ('***', 5432)"),
        ("Connect call failed ('::1', 5432, 0, 0)", "Connect call failed ('***', 5432, 0, 0)"),
        ("[2001:db8::1]:6379 is away", "*** is away"),
        ('could not translate host name "db" to address', "could not translate host name *** to address"),
        ('connection to server at "db", port 5432 failed', "connection to server at ***, port 5432 failed"),
        ("https://node.example/?api-key=x: refused HTTP 503", "https://*** refused HTTP 503"),
        ("/var/lib/headrace/orders.db: disk is full", "***: disk is full"),
        ("headrace-orders.db was moved", "*** was moved"),
        ("unix socket /run/redis/redis.sock", "unix socket ***"),
        (
            "failed, and begin again: cluster/serve ingest: Error 111 connecting to h:6379.",
            "failed, and begin again: cluster/serve ingest: Error 111 connecting to ***.",
        ),
        (
            "0 of 1 endpoints; connecting after: refused HTTP 503",
            "0 of 1 endpoints; connecting after: refused HTTP 503",
        ),
        ("2.5 s behind at 12:30; 1/2 nodes, e. g. slot 1", "2.5 s behind at 12:30; 1/2 nodes, e. g. slot 1"),
    ],
)
def test_hosts_and_files_are_hidden_in_details(detail: str, shown: str) -> None:
    health = Health()
    health.report("bus", ready=False, detail=detail)
    state = health.components()["bus"]
    assert (state.detail, state.last_error) == (shown, shown)


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

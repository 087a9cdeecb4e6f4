"""Readiness is that of the required components; details are safe to show."""

from headrace.runtime.health import ComponentHealth, Health


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
    assert health.components() == {"bus": ComponentHealth(True, "", True)}


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

"""Each registry is its own; a name means one metric."""

import pytest

from headrace.runtime.metrics import Metrics


def test_asking_twice_gives_the_same_metric() -> None:
    metrics = Metrics()
    metrics.counter("frames_sent", "Frames.", ("topic",)).labels("slots").inc()
    metrics.counter("frames_sent", "Frames.", ("topic",)).labels("slots").inc(2)
    metrics.gauge("clients", "Clients.").set(3)
    metrics.gauge("clients", "Clients.").inc()
    metrics.histogram("write_seconds", "Write.").observe(0.004)
    text = metrics.render().decode()
    assert 'headrace_frames_sent_total{topic="slots"} 3.0' in text
    assert "headrace_clients 4.0" in text
    assert 'headrace_write_seconds_bucket{le="0.005"} 1.0' in text
    assert "_created" not in text


def test_a_name_cannot_mean_two_things() -> None:
    metrics = Metrics()
    metrics.counter("x", "X.", ("a",))
    with pytest.raises(ValueError, match="metric x is a Counter with labels"):
        metrics.counter("x", "X.", ("b",))
    with pytest.raises(ValueError, match="metric x is a Counter"):
        metrics.gauge("x", "X.", ("a",))


def test_registries_do_not_share() -> None:
    one, other = Metrics(), Metrics()
    one.counter("x", "X.").inc()
    assert other.render() == b""


def test_process_figures_on_request() -> None:
    assert "process_resident_memory_bytes" in Metrics(process=True).render().decode()

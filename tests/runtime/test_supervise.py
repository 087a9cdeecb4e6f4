"""Tasks have names, failures come out plainly, restarts follow the class of the error, nothing is left behind."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import structlog.testing

from headrace.model.errors import ConfigError, FencedError, InvariantError, TransientError
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import ManualClock
from headrace.runtime.supervise import STEADY_S, Supervisor


def failing(*errors: BaseException | None) -> Callable[[], Coroutine[Any, Any, int]]:
    """Work that raises these one after another (None: returns) and says how often it ran."""
    left = list(errors)

    async def work() -> int:
        await asyncio.sleep(0)
        error = left.pop(0)
        if error is not None:
            raise error
        return len(errors)

    return work


async def forever() -> None:
    await asyncio.Event().wait()


async def test_tasks_have_names_and_results() -> None:
    async with Supervisor(ManualClock()) as supervisor:
        one = supervisor.start("gateway", "hub", failing(None))
        two = supervisor.start("bus", "expire", forever)
        assert (one.get_name(), two.get_name()) == ("gateway/hub", "bus/expire")
        assert await one == 1
        assert not two.done()
        two.cancel()
    assert two.cancelled()


async def test_a_failure_without_restart_takes_the_group_down_and_comes_out_as_it_is() -> None:
    error = TransientError("away")
    supervisor = Supervisor(ManualClock())
    with pytest.raises(TransientError, match="away") as raised:
        async with supervisor:
            sibling = supervisor.start("a", "sibling", forever)
            supervisor.start("b", "fails", failing(error))
    assert raised.value is error
    assert raised.value.__context__ is None
    assert sibling.cancelled()


async def test_the_body_is_cancelled_too() -> None:
    reached = False
    with pytest.raises(InvariantError):
        async with Supervisor(ManualClock()) as supervisor:
            supervisor.start("b", "fails", failing(InvariantError("x")))
            await forever()
            reached = True
    assert not reached


async def test_a_failing_body_cancels_the_tasks_and_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="body"):
        async with Supervisor(ManualClock()) as supervisor:
            sibling = supervisor.start("a", "sibling", forever)
            raise KeyError("body")
    assert sibling.cancelled()


async def test_what_fails_while_stopping_is_logged_not_raised() -> None:
    async def fails_late() -> None:
        try:
            await forever()
        finally:
            raise ValueError("late")

    with structlog.testing.capture_logs() as logs, pytest.raises(TransientError, match="first"):
        async with Supervisor(ManualClock()) as supervisor:
            supervisor.start("a", "late", fails_late)
            supervisor.start("b", "first", failing(TransientError("first")))
    assert [(line["event"], line["task"], line["error"]) for line in logs] == [
        ("task_failed_while_stopping", "a/late", "ValueError('late')")
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes(error: type[BaseException]) -> None:
    async def run() -> None:
        async with Supervisor(ManualClock()) as supervisor:
            supervisor.start("a", "sibling", forever)
            supervisor.start("a", "interrupted", failing(error()), restart=Backoff())

    with pytest.raises(error):
        asyncio.run(run())


async def test_cancel_ends_everything_even_what_has_not_begun() -> None:
    async with Supervisor(ManualClock()) as supervisor:
        begun = supervisor.start("a", "begun", forever, restart=Backoff())
        await asyncio.sleep(0)
        fresh = supervisor.start("a", "fresh", forever)
        supervisor.cancel()
    assert begun.cancelled()
    assert fresh.cancelled()


async def test_cancelling_from_outside_passes_through() -> None:
    inner: list[asyncio.Task[object]] = []

    async def nested() -> None:
        async with Supervisor(ManualClock()) as supervisor:
            inner.append(supervisor.start("a", "inner", forever, restart=Backoff()))

    async with Supervisor(ManualClock()) as outer:
        task = outer.start("a", "outer", nested, restart=Backoff())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert inner[0].cancelled()


async def test_cancelling_one_task_leaves_the_others() -> None:
    async with Supervisor(ManualClock()) as supervisor:
        one = supervisor.start("a", "one", forever)
        two = supervisor.start("a", "two", forever)
        one.cancel()
        await asyncio.wait([one])
        assert not two.done()
        two.cancel()


async def test_restart_waits_for_the_backoff() -> None:
    clock = ManualClock()
    async with Supervisor(clock) as supervisor:
        task = supervisor.start("a", "flaky", failing(*[OSError()] * 3, None), restart=Backoff(1, 4, 2))
        await clock.advance(0.4)
        assert not task.done()
        await clock.advance(1 + 2 + 4)
        assert await task == 4


async def test_a_long_good_run_starts_the_backoff_over() -> None:
    clock = ManualClock()
    backoff = Backoff(1, 10, 2)

    async def runs_long() -> None:
        await clock.sleep(11)
        raise OSError

    async with Supervisor(clock) as supervisor:
        supervisor.start("a", "long", runs_long, restart=backoff)
        for _ in range(5):
            await clock.advance(12)
            assert backoff.tries == 1
        supervisor.cancel()


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("a.b", "1", "2"),
        FencedError("another process has it"),
        InvariantError("cannot be"),
        ExceptionGroup("several", [OSError(), InvariantError("deep")]),
    ],
)
async def test_hopeless_errors_are_never_restarted(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        async with Supervisor(ManualClock()) as supervisor:
            supervisor.start("a", "hopeless", failing(error), restart=Backoff())
    assert raised.value is error


async def test_retry_after_is_respected() -> None:
    clock = ManualClock()
    async with Supervisor(clock) as supervisor:
        slow = TransientError("limited", retry_after_s=100)
        task = supervisor.start("a", "limited", failing(slow, None), restart=Backoff(0.1, 1))
        await clock.advance(99)
        assert not task.done()
        await clock.advance(1)
        assert task.done()


async def test_transient_restarts_are_logged_quietly_and_defects_loudly() -> None:
    clock = ManualClock()
    with structlog.testing.capture_logs() as logs:
        async with Supervisor(clock) as supervisor:
            work = failing(TransientError("away"), TypeError("defect"), None)
            supervisor.start("a", "flaky", work, restart=Backoff(1, 1))
            await clock.advance(3)
    assert [(line["event"], line["log_level"], "exc_info" in line) for line in logs] == [
        ("task_restarts", "warning", False),
        ("task_failed", "error", True),
    ]


async def test_a_restart_for_the_same_reason_is_a_warning_once_until_the_task_has_recovered() -> None:
    clock = ManualClock()
    outcomes = iter(["away", "away", "refused", "away", "after a while", "away"])

    async def work() -> None:
        error = next(outcomes, "")
        if error == "after a while":
            await clock.sleep(STEADY_S)
            error = "away"
        if error:
            raise TransientError(error)

    with structlog.testing.capture_logs() as logs:
        async with Supervisor(clock) as supervisor:
            supervisor.start("a", "flaky", work, restart=Backoff(0.1, 0.1))
            for _ in range(20):
                await clock.advance(0.1)
    assert [(line["error"], line["log_level"]) for line in logs] == [
        ("away", "warning"),
        ("away", "debug"),
        ("refused", "warning"),
        ("away", "debug"),
        ("away", "warning"),
        ("away", "debug"),
    ]


async def test_starting_in_a_closed_group_is_refused_and_leaves_nothing_unawaited() -> None:
    supervisor = Supervisor(ManualClock())
    with pytest.raises(RuntimeError):
        supervisor.start("a", "early", forever)
    async with supervisor:
        pass
    with pytest.raises(RuntimeError):
        supervisor.start("a", "late", forever)


async def test_work_that_cannot_even_be_called_counts_as_failed() -> None:
    def broken() -> Coroutine[Any, Any, None]:
        raise LookupError("no such adapter")

    with pytest.raises(LookupError):
        async with Supervisor(ManualClock()) as supervisor:
            supervisor.start("a", "broken", broken)


@pytest.mark.parametrize(
    "error", [TransientError("away"), TypeError("defect"), InvariantError("broken"), ConfigError("a", "1", "b")]
)
async def test_a_failure_of_any_class_under_on_failure_is_logged_called_back_and_stays_alone(error: Exception) -> None:
    called: list[str] = []
    with structlog.testing.capture_logs() as logs:
        async with Supervisor(ManualClock()) as supervisor:
            sibling = supervisor.start("a", "sibling", forever)
            task = supervisor.start("a", "client", failing(error), on_failure=lambda: called.append("failed"))
            assert await task is None
            assert (called, sibling.done(), supervisor.failing()) == (["failed"], False, {})
            sibling.cancel()
    quiet = isinstance(error, TransientError)
    assert [(line["event"], line["task"], line["log_level"], "exc_info" in line) for line in logs] == [
        ("task_failed", "a/client", "warning" if quiet else "error", not quiet)
    ]


async def test_work_that_returns_or_is_cancelled_does_not_call_on_failure() -> None:
    called: list[str] = []
    async with Supervisor(ManualClock()) as supervisor:
        returned = supervisor.start("a", "returns", failing(None), on_failure=lambda: called.append("returned"))
        cancelled = supervisor.start("a", "waits", forever, on_failure=lambda: called.append("cancelled"))
        assert await returned == 1
        cancelled.cancel()
    assert cancelled.cancelled()
    assert called == []


async def test_a_callback_that_fails_itself_is_logged_and_stays_alone() -> None:
    def broken() -> None:
        raise LookupError("callback")

    with structlog.testing.capture_logs() as logs:
        async with Supervisor(ManualClock()) as supervisor:
            await supervisor.start("a", "client", failing(TypeError("work")), on_failure=broken)
    assert [line["error"] for line in logs] == ["TypeError('work')", "LookupError('callback')"]


async def test_two_policies_for_one_task_are_refused() -> None:
    async with Supervisor(ManualClock()) as supervisor:
        with pytest.raises(ValueError, match="at most one"):
            supervisor.start("a", "both", forever, restart=Backoff(1, 1), on_failure=lambda: None)

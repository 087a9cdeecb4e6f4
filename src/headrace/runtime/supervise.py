"""Starts every task in a TaskGroup, with an owner, a name and a policy for its failure."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self

import structlog

from headrace.model.errors import ConfigError, FencedError, InvariantError, TransientError
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock

Work = Callable[[], Coroutine[Any, Any, object]]

STEADY_S: Final = 1.0
"""Seconds that a restarted task must run before it is treated as recovered."""

REASONS_MAX: Final = 64
"""Most reasons of failures remembered for each task."""

_NOT_WORTH_RETRYING: Final = (ConfigError, FencedError, InvariantError)

_log = structlog.get_logger("supervise")


class Supervisor:
    """A TaskGroup with names. Use as `async with Supervisor(clock) as supervisor`.

    Each task has one of three policies on failure:

    - none given: the failure ends the group. The siblings (and the body of the `async with`) are cancelled, and the
      first failure is raised unchanged. Further failures while the group ends are logged.
    - `restart`: the failure is logged (a TransientError once, until the task has run for STEADY_S again), and the work
      begins again after the backoff's next delay (or the error's `retry_after_s`, if longer), any number of times.
      ConfigError, FencedError and InvariantError are not restarted: they end the group.
    - `on_failure`: the failure, of whatever class, is logged, `on_failure()` is called and the task ends. Nothing else
      in the group is affected. Use this policy for work done for one client or one order.

    A task whose work returns has ended, under each policy. `CancelledError` always passes.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[object]] = set()
        self._first_failure: Exception | None = None
        self._began_s: dict[str, float] = {}
        self._failed: dict[str, Exception] = {}

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._note_failure("body", error)
        try:
            await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup:
            if self._first_failure is None:
                raise
        if self._first_failure is not None:  # outside the handler, so that the traceback does not show the group
            raise self._first_failure

    def start(
        self,
        owner: str,
        name: str,
        work: Work,
        *,
        restart: Backoff | None = None,
        on_failure: Callable[[], object] | None = None,
    ) -> asyncio.Task[object]:
        """Run `work()` as the task `owner/name`. The caller may cancel the returned task; the group awaits it.

        At most one of `restart` and `on_failure` may be given. Raises RuntimeError if the group is not open (not
        entered, shutting down, or ended).
        """
        if restart is not None and on_failure is not None:
            raise ValueError("restart and on_failure are both given, expected at most one of them")
        label = f"{owner}/{name}"
        running = self._run(label, work, restart) if on_failure is None else _run_apart(label, work, on_failure)
        try:
            task = self._group.create_task(running, name=label)
        except RuntimeError:
            running.close()
            raise
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def running(self) -> frozenset[str]:
        """The labels of all tasks."""
        return frozenset(task.get_name() for task in self._tasks)

    def failing(self) -> dict[str, Exception]:
        """Return label → error of the tasks that failed and have not recovered yet."""
        now_s = self._clock.monotonic()
        return {
            label: error
            for label, error in self._failed.items()
            if (began_s := self._began_s.get(label)) is None or now_s - began_s < STEADY_S
        }

    def cancel(self) -> None:
        """Cancel every task. The `async with` ends once its body has also ended."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, label: str, work: Work, restart: Backoff | None) -> object:
        logged: set[str] = set()
        while True:
            started = self._clock.monotonic()
            if restart is not None:
                self._began_s[label] = started
            try:
                result = await work()
                self._failed.pop(label, None)
                self._began_s.pop(label, None)
                return result
            except Exception as error:  # the one place that may catch everything
                if restart is None or _is_hopeless(error):
                    self._note_failure(label, error)
                    raise
                if self._clock.monotonic() - started > restart.max_s:
                    restart.reset()
                delay_s = _delay_s(error, restart)
                if self._clock.monotonic() - started >= STEADY_S:  # it had recovered
                    logged.clear()
                _log_restart(label, error, delay_s, again=str(error) in logged)
                if len(logged) < REASONS_MAX:
                    logged.add(str(error))
                self._failed[label] = error
                self._began_s.pop(label, None)
            await self._clock.sleep(delay_s)

    def _note_failure(self, label: str, error: Exception) -> None:
        if self._first_failure is None:
            self._first_failure = error
        elif error is not self._first_failure:
            _log.error("task_failed_while_stopping", task=label, error=repr(error), exc_info=error)


async def _run_apart(label: str, work: Work, on_failure: Callable[[], object]) -> object:
    """Run the work once. Log its failure, and a failure of `on_failure`. Raise neither."""
    try:
        return await work()
    except Exception as error:  # noqa: BLE001
        _log_failure(label, error)
    try:
        on_failure()
    except Exception as error:  # noqa: BLE001
        _log_failure(label, error)
    return None


def _is_hopeless(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return error.subgroup(_NOT_WORTH_RETRYING) is not None
    return isinstance(error, _NOT_WORTH_RETRYING)


def _delay_s(error: Exception, restart: Backoff) -> float:
    asked_s = error.retry_after_s if isinstance(error, TransientError) else None
    return max(restart.next_s(), asked_s or 0.0)


def _log_restart(label: str, error: Exception, delay_s: float, *, again: bool) -> None:
    """Log the failure. `again`: the task has failed with this error before, and has not recovered since."""
    if isinstance(error, TransientError):
        log = _log.debug if again else _log.warning
        log("task_restarts", task=label, error=str(error), restart_in_s=round(delay_s, 3))
    else:
        _log_failure(label, error, restart_in_s=round(delay_s, 3))


def _log_failure(label: str, error: Exception, **more: float) -> None:
    """Log a TransientError in one line. Log any other error, which is a defect, with its traceback."""
    if isinstance(error, TransientError):
        _log.warning("task_failed", task=label, error=str(error), **more)
    else:
        _log.error("task_failed", task=label, error=repr(error), exc_info=error, **more)

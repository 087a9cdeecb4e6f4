"""Every task lives in a TaskGroup, started here with an owner, a name and a word on what happens when it fails."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self

import structlog

from headrace.model.errors import ConfigError, InvariantError
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock

Work = Callable[[], Coroutine[Any, Any, object]]

_NOT_WORTH_RETRYING: Final = (ConfigError, InvariantError)

_log = structlog.get_logger("supervise")


class Supervisor:
    """A TaskGroup with names. Use as `async with Supervisor(clock) as supervisor`.

    A task started without `restart` that fails takes the group down: its siblings are cancelled and the failure is
    raised from the `async with`. With `restart`, a failure is logged and the work begins again after the backoff's
    next delay, for ever; ConfigError and InvariantError are never restarted. Returning normally ends a task in peace.
    `CancelledError` always passes.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._group.__aexit__(*exc_info)

    def start(self, owner: str, name: str, work: Work, *, restart: Backoff | None = None) -> asyncio.Task[object]:
        """Run `work()` as the task `owner/name`. The caller may cancel the returned task; the group awaits it."""
        label = f"{owner}/{name}"
        task = self._group.create_task(self._run(label, work, restart), name=label)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def names(self) -> list[str]:
        """Names of the running tasks, sorted."""
        return sorted(task.get_name() for task in self._tasks)

    def cancel(self) -> None:
        """Cancel every task; the `async with` then ends."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, label: str, work: Work, restart: Backoff | None) -> object:
        while True:
            started = self._clock.monotonic()
            try:
                return await work()
            except _NOT_WORTH_RETRYING:
                raise
            except Exception as error:  # the one place that may catch everything
                if restart is None:
                    raise
                if self._clock.monotonic() - started > restart.max_s:
                    restart.reset()
                delay_s = restart.next_s()
                _log.error("task_failed", task=label, error=repr(error), restart_in_s=round(delay_s, 3), exc_info=error)
            await self._clock.sleep(delay_s)

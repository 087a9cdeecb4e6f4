"""Work for one client that is not repeated when it fails in a way that nobody foresaw: somebody is told instead."""

import asyncio
from collections.abc import Awaitable, Callable

from headrace.runtime.backoff import Backoff
from headrace.runtime.supervise import Supervisor


def start_once(
    tasks: Supervisor, owner: str, name: str, work: Callable[[], Awaitable[None]], failed: Callable[[], None]
) -> asyncio.Task[object]:
    """Run `work` as the task `owner/name`. Should it fail, that is logged, `failed` is called, and nobody else notices.

    A defect that one client meets stays with it.
    """
    return tasks.start(owner, name, _Once(work, failed), restart=Backoff(0.05, 0.1))


class _Once:
    """The supervisor starts the work again after a failure: the second call says so."""

    def __init__(self, work: Callable[[], Awaitable[None]], failed: Callable[[], None]) -> None:
        self._work, self._failed, self._called = work, failed, False

    async def __call__(self) -> None:
        if self._called:
            self._failed()
            return
        self._called = True
        await self._work()

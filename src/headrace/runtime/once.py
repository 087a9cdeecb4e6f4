"""Work for one client that is not repeated when it fails in a way that nobody foresaw: somebody is told instead."""

import asyncio
from collections.abc import Callable

from headrace.runtime.supervise import Supervisor, Work


def start_once(
    tasks: Supervisor, owner: str, name: str, work: Work, failed: Callable[[], None]
) -> asyncio.Task[object]:
    """Run `work` as the task `owner/name`. Should it fail, that is logged, `failed` is called, and nobody else notices.

    A defect that one client meets stays with it.
    """
    return tasks.start(owner, name, work, on_failure=failed)

"""Measures what a piece of work costs the process: memory at its highest, and how long the loop stood still."""

import asyncio
import time
from pathlib import Path
from typing import Self

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_PEAK_ANEW = "5"  # proc(5): resets the peak resident set size


class Meter:
    """Use as `async with Meter() as meter`; afterwards `grown_bytes` (0 where the system does not say), `lag_s` and
    `stood_s`.

    `grown_bytes` is the highest resident size above that at the beginning. `lag_s` is how long a task was late at most,
    and includes what else the machine did; `stood_s` is the processor's time that passed on the loop meanwhile.
    """

    def __init__(self) -> None:
        self.grown_bytes = 0
        self.lag_s = self.stood_s = 0.0

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(_reset_peak)
        self._before = await asyncio.to_thread(_bytes, "VmRSS")
        self._watch = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.sleep(0)
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        self.grown_bytes = max(0, await asyncio.to_thread(_bytes, "VmHWM") - self._before)

    async def _look(self) -> None:
        while True:
            before, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            self.lag_s = max(self.lag_s, time.perf_counter() - before - 0.001)
            self.stood_s = max(self.stood_s, time.thread_time() - worked)


def _reset_peak() -> None:
    try:
        _CLEAR.write_text(_PEAK_ANEW)
    except OSError:
        pass  # no Linux: nothing is measured


def _bytes(name: str) -> int:
    try:
        text = _STATUS.read_text()
    except OSError:
        return 0
    return int(text.partition(f"{name}:")[2].split()[0]) * 1024

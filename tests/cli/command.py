"""The `headrace` command as people run it: a process of its own, in an empty folder, with only the settings given."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import headrace

PATIENCE_S: Final = 240.0
"""Far more than anything takes; a test that waits this long has failed."""

DEMO: Final = Path(headrace.__file__).parent / "data" / "demo.hrec"
NOWHERE: Final = "ws://127.0.0.1:9"
"""A node that is not there: nothing listens on the discard port."""


class Result(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


class Running:
    """A command that runs. `out` and `err` hold the lines that it wrote so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = asyncio.Event()
        assert process.stdout is not None
        assert process.stderr is not None
        self._reading = asyncio.gather(self._read(process.stdout, self.out), self._read(process.stderr, self.err))
        self._reading.add_done_callback(lambda _: self._changed.set())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds, looked at after each line; fails if the command ends before."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self._reading.done(), "\n".join(["it ended", *self.err])
                self._changed.clear()
                await self._changed.wait()

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line of stderr that matches."""
        await self.until(lambda: any(re.search(pattern, line) for line in self.err))
        return next(found for line in self.err if (found := re.search(pattern, line)))

    async def url(self) -> str:
        """Where it serves, from what it says."""
        return (await self.says(r"https?://[\w.]+:\d+"))[0]

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self) -> Result:
        """Wait until it has ended by itself."""
        async with asyncio.timeout(PATIENCE_S):
            await self._reading
            status = await self.process.wait()
        return Result(status, "\n".join(self.out), "\n".join(self.err))

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode().rstrip("\n"))
            self._changed.set()


def settings(**given: str) -> dict[str, str]:
    """An environment with these settings and nothing else that Headrace reads."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "COVERAGE_PROCESS_START") if name in os.environ}
    return {**kept, "PYTHONUNBUFFERED": "1", "SERVER_PORT": "0", **given}


@asynccontextmanager
async def running(folder: Path, *arguments: str, **given: str) -> AsyncIterator[Running]:
    """A `headrace` process in `folder`; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace", *arguments, cwd=folder, env=settings(**given), limit=2**24,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    command = Running(process)
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
        await command.end()


async def run(folder: Path, *arguments: str, **given: str) -> Result:
    """Run a command to its end."""
    async with running(folder, *arguments, **given) as command:
        return await command.end()

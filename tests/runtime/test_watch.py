"""Changes of files and the signal are told once, when the file stands still; the signal's handler comes back."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from headrace.runtime.clock import ManualClock
from headrace.runtime.watch import SIGHUP, watch


class Looks:
    """A watch and the clock that drives it: `next()` moves time until the watch speaks, `silent()` says it did not."""

    def __init__(self, *paths: Path) -> None:
        self.clock = ManualClock()
        self.changes: AsyncGenerator[frozenset[str], None] = watch(paths, self.clock)
        self._told: asyncio.Task[frozenset[str]] | None = None

    async def look(self, times: int = 1) -> frozenset[str] | None:
        """Move the clock by as many looks, each only when the watch waits for it; what it told, if it did."""
        if self._told is None:
            self._told = asyncio.get_running_loop().create_task(anext(self.changes))
        for _ in range(times):
            await self._waiting()
            await self.clock.advance(1)
            await self._waiting()
        if not self._told.done():
            return None
        told, self._told = self._told.result(), None
        return told

    async def _waiting(self) -> None:
        """The look happens in a thread, so wait until the watch sleeps on the clock again or has spoken."""
        assert self._told is not None
        async with asyncio.timeout(10):
            while not (self._told.done() or self.clock.sleepers):  # noqa: ASYNC110  (the thread sets no event)
                await asyncio.sleep(0.001)

    async def aclose(self) -> None:
        if self._told is not None:
            self._told.cancel()
            await asyncio.gather(self._told, return_exceptions=True)
        await self.changes.aclose()


def write(path: Path, text: str) -> None:
    path.write_text(text)


def remove(path: Path) -> None:
    path.unlink()


def rename(path: Path, target: Path) -> None:
    path.rename(target)


def copy_times(path: Path, target: Path) -> None:
    stat = path.stat()
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "headrace.toml"
    path.write_text("a = 1\n")
    return path


async def test_a_change_is_told_once_when_it_stands_still(file: Path) -> None:
    async with aclosing(Looks(file)) as looks:
        assert await looks.look(3) is None
        write(file, "a = 22\n")
        assert await looks.look() is None
        write(file, "a = 333\n")
        assert await looks.look() is None  # still being written
        assert await looks.look() == frozenset({str(file)})
        assert await looks.look(3) is None


async def test_atomic_replacement_of_the_same_size_and_time(file: Path) -> None:
    async with aclosing(Looks(file)) as looks:
        assert await looks.look() is None
        new = file.with_suffix(".new")
        write(new, "a = 2\n")
        copy_times(file, new)
        rename(new, file)
        assert await looks.look(2) == frozenset({str(file)})


async def test_vanishing_and_appearing(file: Path, tmp_path: Path) -> None:
    other = tmp_path / ".env"
    async with aclosing(Looks(file, other)) as looks:
        assert await looks.look() is None
        remove(file)
        assert await looks.look(2) == frozenset({str(file)})
        write(file, "b = 1\n")
        write(other, "A=1\n")
        assert await looks.look(2) == frozenset({str(file), str(other)})


async def test_a_blink_is_no_change(file: Path) -> None:
    async with aclosing(Looks(file)) as looks:
        assert await looks.look() is None
        moved = file.with_suffix(".old")
        rename(file, moved)
        assert await looks.look() is None
        rename(moved, file)
        assert await looks.look(3) is None


async def test_sighup_is_told_and_the_former_handler_comes_back(file: Path) -> None:
    def former(_number: int, _frame: object) -> None:
        raise AssertionError("not while watching")

    before = signal.signal(signal.SIGHUP, former)
    try:
        async with aclosing(Looks(file)) as looks:
            assert await looks.look() is None
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGHUP)
            assert await looks.look() == frozenset({SIGHUP})
            assert await looks.look(2) is None
        assert signal.getsignal(signal.SIGHUP) is former
    finally:
        signal.signal(signal.SIGHUP, before)

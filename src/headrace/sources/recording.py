"""Recordings: a recorder of a source's updates, and a source that replays them at any pace, once or repeatedly."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar, Final, Self, TypeVar

import msgspec
import structlog

from headrace.adapters import Context
from headrace.config import Setting
from headrace.model.errors import BadInputError, ConfigError
from headrace.model.updates import AnyUpdate, RewindUpdate
from headrace.runtime.channel import ChannelClosed
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.supervise import Supervisor
from headrace.sources import NOTHING_COVERED, Ending, Outlet
from headrace.sources.recording_file import (
    BLOCK_RAW_MAX,
    Block,
    RecordingHeader,
    Tail,
    encode_block,
    encode_header,
    encode_update,
    header_of,
    read_blocks,
    read_header,
    tail_of,
)

BLOCK_BYTES: Final = 256 * 1024

T = TypeVar("T")

__all__ = ["Recorder", "RecorderSettings", "Recording", "header_of"]

_log = structlog.get_logger("recording")


class RecorderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Recording while serving."""

    file: Annotated[
        str, Setting("file to which all updates are written; empty: no recording", env=("RECORD_FILE",))
    ] = ""
    flush_interval_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("seconds between writes; a crash loses no more than this", env=("RECORD_FLUSH_S",)),
    ] = 1.0


class Recorder:
    """Writes the updates of one outlet to a file and passes them on to another, in order.

    Memory is bounded: while a full block (256 KiB) is written, no update is passed on. The file is written as
    `<path>.part`, and renamed when it is complete. The part left by a crash is a recording too, up to its last whole
    block. With `append`, an existing recording is continued after its last whole block, with its own header. On
    `health` the recorder is the part `recording`, which does not affect readiness.
    """

    def __init__(
        self,
        path: Path,
        header: RecordingHeader,
        clock: Clock,
        *,
        append: bool = False,
        health: Health | None = None,
        flush_interval_s: float = 1.0,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.recorded = self.skipped = 0
        self.fault: OSError | None = None
        self._header, self._append, self._health = header, append, health
        self._clock, self._flush_interval_s, self._block_bytes = clock, flush_interval_s, block_bytes
        self._file: BinaryIO | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    async def run(self, intake: Outlet, onward: Outlet | None = None) -> None:
        """Record until `intake` is closed, or until cancelled; then finish the file and close `onward`.

        Raises ConfigError if the file can't be started. If the disk fails later, the recording ends. With `onward`,
        updates still pass and `fault` has the OSError; without `onward` it is raised.
        """
        disk = ThreadPoolExecutor(1, "recorder")  # one thread, so that blocks are written in order
        try:
            self._file = await _on(disk, self._open)
            self._report(ready=True, detail=f"writing {self.part.name}")
            async with Supervisor(self._clock) as supervisor:
                flushing = supervisor.start("recorder", "flush", lambda: self._flush_often(disk))
                try:
                    await self._take_all(disk, intake, onward)
                finally:
                    flushing.cancel()
        finally:
            if onward is not None:
                onward.close()
            await self._write(disk, self._finish)
            disk.shutdown(wait=False)
        if self.fault is not None and onward is None:
            raise self.fault

    async def _take_all(self, disk: Executor, intake: Outlet, onward: Outlet | None) -> None:
        while onward is not None or self.fault is None:
            try:
                batch = await intake.get_batch()
            except ChannelClosed:
                return
            for update in batch:
                self._take(update)
                if self._waiting_bytes >= self._block_bytes:
                    await self._write(disk, self._append_block)
                if onward is not None:
                    await onward.put(update)

    def _take(self, update: AnyUpdate) -> None:
        if self._file is None:
            return
        try:
            encoded = encode_update(update)
        except BadInputError as error:
            self.skipped += 1
            _log.warning("update_not_recorded", reason=error.reason, feed=update.feed)
            return
        self._waiting.append(encoded)
        self._waiting_bytes += len(encoded)
        self.recorded += 1

    async def _flush_often(self, disk: Executor) -> None:
        while self.fault is None:
            await self._clock.sleep(self._flush_interval_s)
            await self._write(disk, self._append_block)

    async def _write(self, disk: Executor, how: Callable[[BinaryIO, list[bytes]], None]) -> None:
        """Write the waiting updates in the disk's thread. The first OSError ends the recording."""
        if self._file is None:
            return
        file, waiting = self._file, self._waiting
        self._waiting, self._waiting_bytes = [], 0
        try:
            await _on(disk, partial(how, file, waiting))
        except OSError as error:
            self._file, self.fault = None, error
            with suppress(OSError):  # close flushes the buffer, which fails again
                await _on(disk, file.close)
            _log.error("recording_stopped", file=str(self.part), error=str(error))
            self._report(ready=False, detail=f"stopped: {error.strerror}")

    def _report(self, *, ready: bool, detail: str) -> None:
        if self._health is not None:
            self._health.report("recording", ready=ready, detail=detail, required=False)

    def _append_block(self, file: BinaryIO, updates: list[bytes]) -> None:
        if updates:
            file.write(encode_block(updates))
            file.flush()

    def _finish(self, file: BinaryIO, updates: list[bytes]) -> None:
        with file:
            self._append_block(file, updates)
            file.write(encode_block(()))
            file.flush()
            os.fsync(file.fileno())
        self.part.replace(self.path)

    def _open(self) -> BinaryIO:
        """Create `<path>.part`, or continue an existing one. No existing file is overwritten."""
        try:
            if self._append and self.path.exists() and not self.part.exists():
                self.path.replace(self.part)
            if self._append and self.part.exists():
                return self._take_up()
            if self.path.exists():
                raise ConfigError("recording", str(self.path), "a file that is not there yet, or --append")
            file = self.part.open("xb")
        except (OSError, BadInputError) as error:
            raise ConfigError("recording", str(self.path), f"a place to write a recording to ({error})") from error
        file.write(encode_header(self._header))
        file.flush()
        return file

    def _take_up(self) -> BinaryIO:
        """Cut off a half-written block, left by a crash.

        If more follows the last good block, the file is damaged: refuse it.
        """
        with self.part.open("rb") as file:
            self._header = read_header(file)
            tail = tail_of(file)
        if self.part.stat().st_size - tail.good > 2 * BLOCK_RAW_MAX:
            raise BadInputError("recording_damaged", tail.fault)
        os.truncate(self.part, tail.good)
        return self.part.open("ab")


async def _on(disk: Executor, work: Callable[[], T]) -> T:
    """Return the result of `work`, run in the disk's thread; work that has begun is not cancelled."""
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(disk, work))


class RecordingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Replay of a recording as a source of the service."""

    file: Annotated[str, Setting("the recording to replay")] = ""
    speed: Annotated[
        float, msgspec.Meta(ge=0), Setting("1: the pace of the recording; 0: as fast as the pipeline takes it")
    ] = 1.0
    loop: Annotated[bool, Setting("start again at the end, each time")] = False


class Recording:
    """A `Source` that replays a file. Each replay has the same updates.

    `speed` 1 is the pace of the receive times, and N is N times as fast. None is as fast as the outlet takes updates.
    With `loop` the replay starts again each time, with a RewindUpdate in between. Damaged blocks are skipped and logged
    with their offset. A file that is not a recording ends the source as `failed`.
    """

    Settings: ClassVar[type[RecordingSettings]] = RecordingSettings

    def __init__(
        self, path: Path, clock: Clock, *, speed: float | None = 1.0, loop: bool = False, name: str = "recording"
    ) -> None:
        if speed is not None and not speed > 0:
            raise ConfigError("speed", str(speed), "a number above 0, or none for as fast as possible")
        self.name = name
        self.delivered = 0
        self._path, self._clock, self._speed, self._loop = path, clock, speed, loop
        self.covered = NOTHING_COVERED

    @classmethod
    async def open(cls, settings: RecordingSettings, context: Context) -> Self:
        """Return the source. The file is read when the source runs. Raises ConfigError if no file is named."""
        cls.check_settings(settings)
        return cls(Path(settings.file), context.clock, speed=settings.speed or None, loop=settings.loop)

    @staticmethod
    def check_settings(settings: RecordingSettings) -> None:
        """Raise ConfigError if no file is named."""
        if not settings.file:
            raise ConfigError("sources.recording.file", "nothing", "the path of a recording")

    def update_subscriptions(self, texts: Sequence[str]) -> None:
        """Do nothing, because a recording has only the feeds that were subscribed to when it was made."""

    async def run(self, outlet: Outlet, covered: Mapping[str, int] = NOTHING_COVERED) -> Ending:
        """Replay until the end of the file, or until cancelled with `loop`. `covered` is ignored."""
        lap = 0
        while True:
            before = self.delivered
            try:
                file = await asyncio.to_thread(self._path.open, "rb")
                with file:
                    await asyncio.to_thread(read_header, file)
                    tail = await self._replay(file, outlet)
            except (OSError, BadInputError) as error:
                return Ending("failed", f"{self._path}: {error}")
            if tail.fault and lap == 0:
                _log.warning("recording_incomplete", file=str(self._path), fault=tail.fault)
            if not self._loop or self.delivered == before:
                return Ending("exhausted", tail.fault)
            lap += 1
            now = self._clock.wall_ns()
            await outlet.put(RewindUpdate(source=self.name, feed="recording", received_ns=now, slot=0, lap=lap))

    async def _replay(self, file: BinaryIO, outlet: Outlet) -> Tail:
        """Deliver the whole file once. Return how the file ended."""
        blocks: Iterator[Block | Tail] = read_blocks(file)
        pace: _Pace | None = None
        while True:
            block = await asyncio.to_thread(next, blocks)
            if isinstance(block, Tail):
                return block
            if block.fault:
                _log.warning("recording_block_skipped", file=str(self._path), fault=block.fault)
            for update in block.updates:
                if self._speed is not None:
                    pace = pace or _Pace(self._clock, self._speed, update.received_ns)
                    await pace.wait_for(update.received_ns)
                await outlet.put(update)
                self.delivered += 1


class _Pace:
    """Waits until an update's distance from the first receive time, divided by `speed`, has passed."""

    def __init__(self, clock: Clock, speed: float, first_ns: int) -> None:
        self._clock, self._speed, self._first_ns = clock, speed, first_ns
        self._start = clock.monotonic()

    async def wait_for(self, received_ns: int) -> None:
        due = self._start + (received_ns - self._first_ns) / 1e9 / self._speed
        wait_s = due - self._clock.monotonic()
        if wait_s > 0:
            await self._clock.sleep(wait_s)

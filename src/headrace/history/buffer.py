"""Facts that wait to be written to a history, first in, first out: in memory, and beyond that in a file."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from headrace.history import Kept
from headrace.history.spill import Spill
from headrace.model.facts import TokenCreated, Traded

BATCH_MAX: Final = 2_000
FACT_BYTES: Final = 1_500
"""Approximate memory of a fact in bytes, besides the text of its event."""
DECISION_BYTES: Final = 300


class Buffer:
    """Queue of facts, of which at most `bytes_max` are in memory.

    Without a file, `put` refuses what does not fit. With a file (`spill`), a quarter of the memory is for facts on
    their way to the file, and `put` refuses facts if the file is full, or slower than the facts for long. `lose` is
    called with facts that the disk did not take, and `refuse` with facts that no file can hold.
    """

    def __init__(
        self,
        bytes_max: int,
        spill: Spill | None,
        *,
        lose: Callable[[Sequence[Kept]], None],
        refuse: Callable[[Sequence[Kept]], None],
    ) -> None:
        self._bytes_max, self._lose, self._refuse = bytes_max, lose, refuse
        self._waiting, self._overflow = deque[Kept](), deque[Kept]()
        self._waiting_bytes = self._overflow_bytes = 0
        self._file = asyncio.Lock()
        self._wake = asyncio.Event()
        self._appending = False
        self._read: int | None = None
        self._epoch = self._file_epoch = 0
        self.spill_to(spill)

    def spill_to(self, spill: Spill | None) -> None:
        """Use this file from now on. No fact waits yet."""
        self._spill = spill
        self._overflow_max = 0 if spill is None else self._bytes_max // 4
        self._waiting_max = self._bytes_max - self._overflow_max
        self.earlier = 0 if spill is None else spill.frames
        """Batches in the file that an earlier process left; they come first."""
        self._wake.set()

    @property
    def bytes(self) -> int:
        """Return the approximate memory of all waiting facts, in bytes."""
        return self._waiting_bytes + self._overflow_bytes

    @property
    def frames(self) -> int:
        """Return the number of batches that wait in the file."""
        return 0 if self._spill is None or self._file_epoch != self._epoch else self._spill.frames

    @property
    def has_older(self) -> bool:
        """Return whether facts wait in memory that are older than those in the file."""
        return bool(self._waiting)

    @property
    def is_empty(self) -> bool:
        """Return whether no fact waits in memory. Facts in the file may wait for the next start of the process."""
        return not (self._waiting or self._overflow or self._appending)

    def put(self, fact: Kept) -> bool:
        """Append a fact. Return False if there is no room."""
        weight = _weight(fact)
        spills = self._overflow or self._appending or self.frames
        if not spills and self._waiting_bytes + weight <= self._waiting_max:
            self._waiting_bytes += weight
            self._waiting.append(fact)
            return True
        if self._spill is None or self._spill.is_full or self._overflow_bytes + weight > self._overflow_max:
            return False
        self._overflow_bytes += weight
        self._overflow.append(fact)
        self._wake.set()
        return True

    def clear(self) -> None:
        """Delete all facts. Those in the file are deleted before the next access to the file."""
        self._epoch += 1
        self._waiting.clear()
        self._overflow.clear()
        self._waiting_bytes = self._overflow_bytes = self.earlier = 0

    async def take(self) -> list[Kept]:
        """Return the oldest facts, and remove them from memory; an empty list if none wait. `finish` must follow."""
        if not self._waiting and self._spill is not None:
            async with self._file:
                await self._clear_file(self._spill)
                if self._spill.frames:
                    self._read = self._epoch
                    return await asyncio.to_thread(self._spill.read)
                self._waiting, self._overflow = self._overflow, self._waiting
                self._waiting_bytes, self._overflow_bytes = self._overflow_bytes, 0
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        self._waiting_bytes -= sum(map(_weight, batch))
        return batch

    async def finish(self) -> None:
        """Remove the facts that `take` returned from the file, as they are written."""
        read, self._read = self._read, None
        if self._spill is not None and read is not None and read == self._epoch:
            async with self._file:
                await asyncio.to_thread(self._spill.remove)
            self.earlier = max(0, self.earlier - 1)

    async def run(self) -> None:
        """Move facts that don't fit the memory to the file, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Move the facts that don't fit the memory to the file."""
        while self._overflow and self._spill is not None:
            async with self._file:
                await self._clear_file(self._spill)
                batch = [self._overflow.popleft() for _ in range(min(BATCH_MAX, len(self._overflow)))]
                self._appending = True
                try:
                    refused = await asyncio.to_thread(self._spill.append, batch)
                except OSError:
                    self._lose(batch)
                else:
                    self._refuse(refused)
                finally:
                    self._appending = False
                    self._overflow_bytes = sum(map(_weight, self._overflow))

    async def _clear_file(self, spill: Spill) -> None:
        """Delete what was in the file before `clear`."""
        if self._file_epoch != self._epoch:
            epoch = self._epoch
            await asyncio.to_thread(spill.clear)
            self._file_epoch = epoch


def _weight(fact: Kept) -> int:
    return FACT_BYTES + len(fact.seen.body.text) if isinstance(fact, Traded | TokenCreated) else DECISION_BYTES

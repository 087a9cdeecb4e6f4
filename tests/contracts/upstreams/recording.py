"""A recording file as an upstream; each transaction has a block of its own, so that one can be damaged."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from headrace.model.updates import LogsUpdate
from headrace.sources.recording import RecordingSettings
from headrace.sources.recording_file import RecordingHeader, encode_block, encode_header, encode_update
from headrace.testing.ledger import made_up_signature
from tests.contracts.upstreams import Land, Spoil, Step


class Upstream:
    LIVE = False
    http_url = "http://127.0.0.1:1"

    async def __aenter__(self) -> Self:
        self._folder = await asyncio.to_thread(tempfile.TemporaryDirectory)
        self._path = Path(self._folder.name) / "recording.hrec"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self._folder.cleanup)

    @property
    def settings(self) -> RecordingSettings:
        return RecordingSettings(file=str(self._path), speed=0)

    @property
    def unusable(self) -> RecordingSettings:
        return RecordingSettings()

    async def prepare(self, steps: Sequence[Step]) -> None:
        blocks = [encode_header(RecordingHeader(id="contract", started_ns=0))]
        for slot, step in enumerate(steps, 1000):
            if isinstance(step, Land):
                block = encode_block([encode_update(_logs(step, slot))])
                blocks += [block] * step.times
            elif isinstance(step, Spoil):
                block = encode_block([encode_update(_logs(Land(0), slot))])
                blocks.append(block[:-1] + bytes([block[-1] ^ 0xFF]))
        await asyncio.to_thread(self._path.write_bytes, b"".join([*blocks, encode_block(())]))

    async def covered(self, component: Any) -> None:
        pass

    async def perform(self, steps: Sequence[Step]) -> None:
        pass

    def go_on(self) -> None:
        pass


def _logs(step: Land, slot: int) -> LogsUpdate:
    return LogsUpdate(
        source="rpc-0",
        feed=f"logs:{step.program}",
        received_ns=slot,
        slot=slot,
        signature=made_up_signature(step.number),
        err=None,
        logs=(),
    )

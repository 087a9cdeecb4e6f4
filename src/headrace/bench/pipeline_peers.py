"""Programs of others that do the work of `headrace bench pipeline` on the same frames."""

import argparse
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from headrace.bench.decode import merged_idl

RUN_S_MAX: Final = 120.0
"""Seconds after which a peer is given up."""


class PeerRun(msgspec.Struct, frozen=True):
    """Line that a peer prints for each of its runs: frames a second, and CPU time of one frame in µs."""

    per_s: float
    cpu_us: float


class Peer(NamedTuple):
    """Command of a peer. In its words, `{frames}` stands for a file with a frame a line, `{idl}` for pump.fun's IDL."""

    name: str
    words: Sequence[str]

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """Return the peer of `NAME=COMMAND`. Raises ArgumentTypeError."""
        name, equals, command = text.partition("=")
        words = shlex.split(command)
        if not name or not equals or not any("{frames}" in word for word in words):
            raise argparse.ArgumentTypeError(f"got {text}, expected NAME=COMMAND with {{frames}} in the command")
        return cls(name, words)

    def measure(self, folder: Path, kind: str) -> PeerRun:
        """Run the command on the frames of a kind; return its last run, which is warm. Raises SystemExit."""
        places = {"{frames}": str(folder / f"{kind}.jsonl"), "{idl}": str(folder / "idl.json")}
        words = [_filled(word, places) for word in self.words]
        done = subprocess.run(words, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)  # noqa: S603 - the caller's own command
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            raise SystemExit(f"{self.name}: status {done.returncode}, {len(lines)} runs: {done.stderr[-500:]}")
        return msgspec.json.decode(lines[-1], type=PeerRun)


def write_inputs(folder: Path, frames: dict[str, Sequence[bytes]]) -> None:
    """Write the frames of each kind, and the IDL, to files."""
    (folder / "idl.json").write_bytes(msgspec.json.encode(merged_idl()))
    for kind, lines in frames.items():
        (folder / f"{kind}.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def _filled(word: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        word = word.replace(name, value)
    return word

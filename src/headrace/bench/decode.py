"""How many events and accounts a core decodes in a second, beside borsh-construct and, in Node, Anchor's own coder.

Contenders take turns, round by round; what is reported are medians over rounds. See benchmarks/decode/README.md.
"""

import argparse
import base64
import importlib
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple, TextIO

import msgspec

from headrace.decoders import shapes
from headrace.decoders.compiler import Layout
from headrace.decoders.registry import SHIPPED, Programs
from headrace.decoders.shapes import Shape

TRADE_EVENT: Final = base64.b64decode(
    "vdt/007mYe5gayToZdvqQFw5xwAwy7dLipEDqkPkyyaoVFm0U/ayXwAAAAAAAAAAUXSdHw4RAAABtevR//Umc4jXJQSsKnDw1wSogy84hUZOTBNH"
    "SZkvaG+OjdZqAAAAAAAAAAAAAAAAMeSJHk52AgAAAAAAAAAAADFMd9K8dwEArRHmpPwpRKT6glG++BVCbhv7KMa2ZGZ3YHxq2fVmpkZfAAAAAAAA"
    "ALTzCAAAAAAAXx33a8Y0TXFNgKBXJaO0XXZOAFOOJxocAN+eEOCGgtEKAAAAAAAAADzxAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAEgAAAGJ1eV9leGFjdF9xdW90ZV9pbgAAAAAAAAAAAAAAAAAAAAAAiBMAAAAAAADaeQQAAAAAAAAAAAAH6KUOFA/aV5H0VmqVf9OuP4c+"
    "ajRm/8E9eRGd+pq1CppPrgMAAAAAtSS3iwAAAABP6HkxAAAAAAoAAAAAAAAAPPEAAAAAAACS/AQAAAAAAAAAAAAAAAAA"
)
"""Of transaction 26EFfjMXyzeyAt9L8vhesb54Y1REipUjLXFdCCmcgohY3a59WVk17QcHw1ZgJ4C7qmHm3HgcCD7RBhF2pYUwr9Hb."""

BONDING_CURVE: Final = base64.b64decode(
    "F7f4N2DYrGDkpte5fP4BADNVWVoNAAAA5A7Fbev/AAAzqTVeBgAAAACAxqR+jQMAAKpNv0JlYYHW0WuoQwpo8ndp9U8QbZO6SJZI/RzPl/+dAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACrkAAAAAAAACpfDQAAAAAAAAAAAAAAAAAAAA=="
) + bytes(15)
"""Of account 8d4zoLURBM4YNBWYsipQpA9HtPZLqWJ2fQqY5bzPGV1r, grown to its present length."""

PROJECTED: Final = {
    "TradeEvent": (
        *("mint", "sol_amount", "token_amount", "is_buy", "user", "timestamp", "virtual_sol_reserves"),
        *("virtual_token_reserves", "real_sol_reserves", "real_token_reserves", "fee"),
    ),
    "BondingCurve": ("virtual_token_reserves", "virtual_quote_reserves", "complete"),
}
ROUNDS: Final = 9
PER_ROUND: Final = {"headrace": 20_000, "borsh-construct": 600, "anchor": 4_000}

Contender = Callable[[], float]
"""Runs one round; gives ns per decode."""


class Subject(NamedTuple):
    """What is decoded: its kind, name, bytes and our layout."""

    kind: str
    name: str
    data: bytes
    layout: Layout


def subjects() -> list[Subject]:
    """The two that the peers are measured on."""
    pump = Programs.load().by_name["pump"]
    return [
        Subject("event", "TradeEvent", TRADE_EVENT, pump.events["TradeEvent"]),
        Subject("account", "BondingCurve", BONDING_CURVE, pump.accounts["BondingCurve"]),
    ]


def timed(decode: Callable[[], object], rounds: int) -> float:
    """ns per call."""
    began = time.perf_counter_ns()
    for _ in repeat(None, rounds):
        decode()
    return (time.perf_counter_ns() - began) / rounds


def ours(subject: Subject) -> dict[str, Contender]:
    """Whole, with wire JSON, and only some fields."""
    layout, data, rounds = subject.layout, subject.data, PER_ROUND["headrace"]
    some = layout.project(PROJECTED[subject.name])
    return {
        "headrace": lambda: timed(partial(layout.decode, data, 8), rounds),
        "headrace + wire JSON": lambda: timed(lambda: layout.encode_json(layout.decode(data, 8)[0]), rounds),
        f"headrace, {len(some.names)} fields": lambda: timed(partial(some.decode, data, 8), rounds),
    }


def borsh_construct(subject: Subject) -> dict[str, Contender]:
    """The same layout in borsh-construct; nothing where it is not installed."""
    try:
        borsh, construct = importlib.import_module("borsh_construct"), importlib.import_module("construct")
    except ImportError:
        return {}

    def peer(shape: Shape) -> Any:
        match shape:
            case shapes.Scalar(kind="bool"):
                return borsh.Bool
            case shapes.Scalar():
                return getattr(borsh, shape.kind.upper())
            case shapes.Text():
                return borsh.String
            case shapes.Vec():
                return borsh.Vec(peer(shape.item))
            case shapes.Struct():
                return borsh.CStruct(*(field.name / peer(field.shape) for field in shape.fields))
        return construct.Bytes(32)

    parser, body = peer(subject.layout.shape), subject.data[8:]
    return {"borsh-construct": lambda: timed(partial(parser.parse, body), PER_ROUND["borsh-construct"])}


class Anchor:
    """The Node peer: one process that decodes on demand. `missing` says why it is not here."""

    def __init__(self, folder: Path, measured: list[Subject]) -> None:
        self.missing = ""
        node = shutil.which("node")
        if node is None or not (folder / "node_modules").is_dir():
            self.missing = f"no node on the path, or no node_modules in {folder} (npm ci)"
            return
        rounds = PER_ROUND["anchor"]
        order = {
            "idl": merged_idl(),
            "measures": {
                s.name: {"kind": s.kind, "type": s.name, "data": base64.b64encode(s.data).decode(), "rounds": rounds}
                for s in measured
            },
        }
        self._process = subprocess.Popen(  # noqa: S603 - node on our own script
            [node, "decode.mjs"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._ask(json.dumps(order))

    def contender(self, subject: Subject) -> dict[str, Contender]:
        """One round of this subject in Node."""
        return {} if self.missing else {"anchor (node)": lambda: float(self._ask(subject.name))}

    def close(self) -> None:
        """End the process."""
        if not self.missing:
            self._process.communicate(timeout=10)

    def _ask(self, line: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(line + "\n")
        stdin.flush()
        return stdout.readline().strip()


def merged_idl() -> dict[str, Any]:
    """The shipped pump IDL with its supplement, for a reader that knows no supplements."""
    interface: dict[str, Any] = json.loads((SHIPPED / "pump.json").read_bytes())
    supplement = json.loads((SHIPPED / "supplements" / "pump.json").read_bytes())
    for kind in ("types", "events", "instructions"):
        items = {item["name"]: item for item in interface[kind]}
        items |= {item["name"]: item for item in supplement.get(kind, ())}
        interface[kind] = list(items.values())
    return interface


def measure(rounds: int, peer: Path) -> dict[str, Any]:
    """{subject: {contender: {"us", "per_s", "times"}}}; `times`: how often our whole decode fits into theirs."""
    measured = subjects()
    anchor = Anchor(peer, measured)
    report: dict[str, Any] = {}
    for subject in measured:
        contenders = ours(subject) | borsh_construct(subject) | anchor.contender(subject)
        for run_once in contenders.values():
            run_once()  # warm
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run_once in contenders.items():
                taken[name].append(run_once())
        report[subject.name] = {
            name: {
                "us": round(median(ns) / 1e3, 2),
                "per_s": round(1e9 / median(ns)),
                "times": round(median(b / a for a, b in zip(taken["headrace"], ns, strict=True)), 2),
            }
            for name, ns in taken.items()
        }
    anchor.close()
    if anchor.missing:
        report["anchor"] = f"not measured: {anchor.missing}"
    else:
        report["node"] = anchor.version
    return report


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [f"# Decoding, {report['at'][:10]}", "", f"{report['machine']}; medians of {report['rounds']} rounds.", ""]
    for subject in PROJECTED:
        lines += [f"## {subject}", "", "| decoder | µs | decodes/s | times headrace |", "|---|---:|---:|---:|"]
        for name, row in report["results"][subject].items():
            lines.append(f"| {name} | {row['us']} | {row['per_s']:,} | {row['times']} |")
        lines.append("")
    lines += [str(note) for key, note in report["results"].items() if key == "anchor"]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--peer", type=Path, default=Path("benchmarks/decode/anchor"), help="folder of the Node peer")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="also write results-DATE.md there")


def run(args: argparse.Namespace, out: TextIO = sys.stdout) -> dict[str, Any]:
    """Measure, print the table, and give the report."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    results = measure(args.rounds, args.peer)
    machine = f"Python {platform.python_version()}, {platform.machine()}, Node {results.get('node', 'absent')}"
    report = {"bench": "decode", "at": at, "machine": machine, "rounds": args.rounds, "results": results}
    text = table(report)
    out.write(text + "\n")
    if args.write is not None:
        (args.write / f"results-{at[:10]}.md").write_text(text.rstrip() + "\n")
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    sys.stdout.write(msgspec.json.encode(run(parser.parse_args())).decode() + "\n")

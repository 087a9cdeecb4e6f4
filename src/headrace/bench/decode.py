"""Measures how many events and accounts one core decodes per second, compared with borsh-construct and Anchor's coder.

Anchor's coder runs in Node. All inputs of a round differ: each has its own user and amounts, and the keys of one of 500
coins. All contenders run in each round. The report has the medians over the rounds. See benchmarks/decode/README.md.
"""

import argparse
import base64
import importlib
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec
from solders.pubkey import Pubkey

from headrace.bench import at_least_one, progress, run_and_report
from headrace.decoders import shapes
from headrace.decoders.compiler import Layout
from headrace.decoders.registry import Programs
from headrace.decoders.shapes import Shape
from headrace.model.keys import KEY_TEXTS
from headrace.programs import SHIPPED

TRADE_EVENT: Final = base64.b64decode(
    "vdt/007mYe5gayToZdvqQFw5xwAwy7dLipEDqkPkyyaoVFm0U/ayXwAAAAAAAAAAUXSdHw4RAAABtevR//Umc4jXJQSsKnDw1wSogy84hUZOTBNH"
    "SZkvaG+OjdZqAAAAAAAAAAAAAAAAMeSJHk52AgAAAAAAAAAAADFMd9K8dwEArRHmpPwpRKT6glG++BVCbhv7KMa2ZGZ3YHxq2fVmpkZfAAAAAAAA"
    "ALTzCAAAAAAAXx33a8Y0TXFNgKBXJaO0XXZOAFOOJxocAN+eEOCGgtEKAAAAAAAAADzxAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAEgAAAGJ1eV9leGFjdF9xdW90ZV9pbgAAAAAAAAAAAAAAAAAAAAAAiBMAAAAAAADaeQQAAAAAAAAAAAAH6KUOFA/aV5H0VmqVf9OuP4c+"
    "ajRm/8E9eRGd+pq1CppPrgMAAAAAtSS3iwAAAABP6HkxAAAAAAoAAAAAAAAAPPEAAAAAAACS/AQAAAAAAAAAAAAAAAAA"
)
"""Event of transaction 26EFfjMXyzeyAt9L8vhesb54Y1REipUjLXFdCCmcgohY3a59WVk17QcHw1ZgJ4C7qmHm3HgcCD7RBhF2pYUwr9Hb."""

BONDING_CURVE: Final = base64.b64decode(
    "F7f4N2DYrGDkpte5fP4BADNVWVoNAAAA5A7Fbev/AAAzqTVeBgAAAACAxqR+jQMAAKpNv0JlYYHW0WuoQwpo8ndp9U8QbZO6SJZI/RzPl/+dAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACrkAAAAAAAACpfDQAAAAAAAAAAAAAAAAAAAA=="
) + bytes(15)
"""Account 8d4zoLURBM4YNBWYsipQpA9HtPZLqWJ2fQqY5bzPGV1r, padded to the present length of such accounts."""

PEERS: Final = ("borsh-construct", "anchor")
PROJECTED: Final = {
    "TradeEvent": (
        *("mint", "sol_amount", "token_amount", "is_buy", "user", "timestamp", "virtual_sol_reserves"),
        *("virtual_token_reserves", "real_sol_reserves", "real_token_reserves", "fee"),
    ),
    "BondingCurve": ("virtual_token_reserves", "virtual_quote_reserves", "complete"),
}
OF_A_COIN: Final = {"TradeEvent": ((8, 32), (177, 32)), "BondingCurve": ((49, 32),)}
"""(start, length) of the keys that are the same for all trades of a coin: mint and creator."""

OF_AN_INPUT: Final = {"TradeEvent": ((40, 5), (48, 5), (57, 32)), "BondingCurve": ((8, 5), (16, 5), (24, 5))}
"""(start, length) of the bytes that differ in every input: the amounts and the user.

The remaining bytes (the receiver of fees, the quote's mint) do not differ from trade to trade on the chain either.
"""

COINS: Final = 500
ROUNDS: Final = 9
INPUTS: Final = 4_000
INPUTS_SLOW: Final = 600
"""Number of inputs in a round of borsh-construct, which is slow."""

Contender = Callable[[], float]
"""Runs one round. Returns ns per decode."""


class Subject(NamedTuple):
    """A workload: data of one kind and name to decode, with Headrace's layout of them."""

    kind: str
    name: str
    inputs: list[bytes]
    layout: Layout


def subjects() -> list[Subject]:
    """Return the two workloads on which all contenders are measured."""
    pump = Programs.load().by_name["pump"]
    return [
        Subject("event", "TradeEvent", varied("TradeEvent", TRADE_EVENT), pump.events["TradeEvent"]),
        Subject("account", "BondingCurve", varied("BondingCurve", BONDING_CURVE), pump.accounts["BondingCurve"]),
    ]


def varied(name: str, real: bytes, coins: int = COINS) -> list[bytes]:
    """Return inputs like `real`, all different, of `coins` coins."""
    chance = random.Random(1)  # noqa: S311 - not a secret
    keys = [[chance.randbytes(length) for _, length in OF_A_COIN[name]] for _ in range(coins)]
    inputs = []
    for _ in range(INPUTS):
        data = bytearray(real)
        for (start, length), key in zip(OF_A_COIN[name], chance.choice(keys), strict=True):
            data[start : start + length] = key
        for start, length in OF_AN_INPUT[name]:
            data[start : start + length] = chance.randbytes(length)
        inputs.append(bytes(data))
    return inputs


def timed(decode: Callable[[bytes], object], inputs: Sequence[bytes]) -> float:
    """Return the mean time of a call in ns."""
    began = time.perf_counter_ns()
    for data in inputs:
        decode(data)
    return (time.perf_counter_ns() - began) / len(inputs)


def ours(subject: Subject) -> dict[str, Contender]:
    """Return Headrace's contenders: all fields, all with wire JSON, only some fields, and all fields with new keys."""
    layout, inputs = subject.layout, subject.inputs
    some = layout.project(PROJECTED[subject.name])
    layout.decode(inputs[0], 8)  # compiles
    some.decode(inputs[0], 8)

    def whole(data: bytes) -> object:
        return layout.decode(data, 8)

    def anew(decode: Callable[[bytes], object], inputs: Sequence[bytes] = subject.inputs) -> Contender:
        """Return a contender whose rounds begin with an empty cache of key texts."""

        def run_once() -> float:
            KEY_TEXTS.clear()
            return timed(decode, inputs)

        return run_once

    return {
        "headrace": anew(whole),
        "headrace + wire JSON": anew(lambda data: layout.encode_json(layout.decode(data, 8)[0])),
        f"headrace, {len(some.names)} fields": anew(lambda data: some.decode(data, 8)),
        "headrace, every key new": anew(whole, varied(subject.name, inputs[0], coins=10 * INPUTS)),
    }


def borsh_construct(subject: Subject) -> dict[str, Contender]:
    """Return the contender borsh-construct for the same layout and values; empty if it is not installed."""
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
        return construct.ExprAdapter(construct.Bytes(32), lambda raw, _: str(Pubkey(raw)), None)

    parser = peer(subject.layout.shape)
    inputs = subject.inputs[:INPUTS_SLOW]
    return {"borsh-construct": lambda: timed(lambda data: parser.parse(data[8:]), inputs)}


class Anchor:
    """Anchor's coder: one Node process that decodes on request. `missing` is the reason if it can't run."""

    def __init__(self, folder: Path, measured: list[Subject]) -> None:
        self.missing = ""
        node = shutil.which("node")
        if node is None:
            self.missing = "there is no node on the path"
        elif not (folder / "node_modules").is_dir():
            self.missing = f"{folder} has no node_modules (call npm ci there, or give its place with --peer)"
        if node is None or self.missing:
            return
        measures = {}
        for subject in measured:
            inputs = [base64.b64encode(data).decode() for data in subject.inputs]
            for suffix in ("", " json"):
                measures[subject.name + suffix] = {
                    "kind": subject.kind,
                    "type": subject.name,
                    "inputs": inputs,
                    "json": bool(suffix),
                }
        order = {"idl": merged_idl(), "measures": measures}
        self._process = subprocess.Popen(  # noqa: S603 - node on our own script
            [node, "decode.mjs"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._ask(msgspec.json.encode(order).decode())

    def contender(self, subject: Subject) -> dict[str, Contender]:
        """Return the contenders that decode this subject in Node."""
        if self.missing:
            return {}
        return {
            "anchor": lambda: float(self._ask(subject.name)),
            "anchor + JSON.stringify": lambda: float(self._ask(f"{subject.name} json")),
        }

    def close(self) -> None:
        """End the Node process."""
        if not self.missing:
            self._process.communicate(timeout=10)

    def _ask(self, line: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(line + "\n")
        stdin.flush()
        return stdout.readline().strip()


def merged_idl() -> dict[str, Any]:
    """Return the included pump IDL merged with its supplement, because Anchor does not read supplements."""
    interface: dict[str, Any] = msgspec.json.decode((SHIPPED / "pump" / "idl.json").read_bytes())
    supplement = msgspec.json.decode((SHIPPED / "pump" / "supplement.json").read_bytes())
    for kind in ("types", "events", "instructions"):
        items = {item["name"]: item for item in interface[kind]}
        items |= {item["name"]: item for item in supplement.get(kind, ())}
        interface[kind] = list(items.values())
    return interface


def measure(rounds: int, peer: Path) -> dict[str, Any]:
    """Return {subject: {contender: {"us", "per_s", "times"}}}. `times` is its time divided by Headrace's."""
    measured = subjects()
    anchor = Anchor(peer, measured)
    report: dict[str, Any] = {}
    for subject in measured:
        contenders = ours(subject) | borsh_construct(subject) | anchor.contender(subject)
        for run_once in contenders.values():
            run_once()  # warm up
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for nth in range(rounds):
            progress(f"{subject.name}: round {nth + 1} of {rounds}")
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
        if "borsh-construct" not in contenders:
            report["borsh-construct"] = "not measured: borsh-construct is not installed (pip install borsh-construct)"
    anchor.close()
    if anchor.missing:
        report["anchor"] = f"not measured: {anchor.missing}"
    else:
        report["node"] = anchor.version
    return report


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [f"Decoding, {report['at'][:10]}: {report['machine']}; medians of {report['rounds']} rounds", ""]
    for subject in PROJECTED:
        lines += [f"| {subject} | µs | decodes/s | times headrace |", "|---|---:|---:|---:|"]
        for name, row in report["results"][subject].items():
            lines.append(f"| {name} | {row['us']} | {row['per_s']:,} | {row['times']} |")
        lines.append("")
    lines += [f"{peer}: {report['results'][peer]}" for peer in PEERS if peer in report["results"]]
    return "\n".join(lines).rstrip()


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and return the report."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    results = measure(args.rounds, args.peer)
    machine = f"Python {platform.python_version()}, {platform.machine()}, Node {results.get('node', 'absent')}"
    return {"bench": "decode", "at": at, "machine": machine, "rounds": args.rounds, "results": results}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `headrace bench decode`: print a table. With --write, append the report to the folder's results.jsonl."""
    parser = argparse.ArgumentParser(prog="headrace bench decode", description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=ROUNDS, help="default %(default)s")
    parser.add_argument("--peer", type=Path, default=Path("benchmarks/decode/anchor"), help="folder of the Node peer")
    return run_and_report(parser, argv, run, table)


if __name__ == "__main__":
    sys.exit(main())

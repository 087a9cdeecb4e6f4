"""The real material in tests/data/mainnet, and ways to spoil it."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pybase64
from hypothesis import strategies as st

from headrace.decoders.registry import Programs
from headrace.model.updates import TransactionUpdate
from headrace.solana.transactions import transaction_from_rpc, transaction_from_simulation
from headrace.solana.yellowstone_json import transaction_from_yellowstone_json

FOLDER = Path(__file__).parent / "data" / "mainnet"
STAMP: dict[str, Any] = {"source": "test", "feed": "test", "received_ns": 1}
PUMP = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"


class Entry(NamedTuple):
    """One line of INDEX.json."""

    file: str
    kind: str
    facts: dict[str, Any]

    @property
    def document(self) -> Any:
        """A fresh copy of the file's JSON."""
        return json.loads((FOLDER / self.file).read_text())


@cache
def programs() -> Programs:
    """The shipped programs, loaded once."""
    return Programs.load()


@cache
def entries() -> tuple[Entry, ...]:
    """Every transaction and simulation of the index."""
    return tuple(Entry(each["file"], each["kind"], each) for each in json.loads((FOLDER / "INDEX.json").read_text()))


def entry(start: str) -> Entry:
    """The entry whose file name starts so."""
    (found,) = [each for each in entries() if each.file.split("/")[1].startswith(start)]
    return found


@cache
def update(file: str) -> TransactionUpdate:
    """A file of the index as an update."""
    (found,) = [each for each in entries() if each.file == file]
    return read(found.kind, found.document)


def read(kind: str, document: Any) -> TransactionUpdate:
    """A document of that kind as an update."""
    if kind == "yellowstone_txupdates":
        return transaction_from_yellowstone_json(document, **STAMP)
    if kind == "simulations":
        wire = pybase64.b64decode(document["wire"])
        result = document["response"]["result"]
        return transaction_from_simulation(result["value"], wire, **STAMP, slot=result["context"]["slot"])
    return transaction_from_rpc(document["result"], **STAMP)


def log_lines() -> list[tuple[str, ...]]:
    """The log lines of every transaction that has some."""
    found = [update(each.file).logs for each in entries()]
    return [each for each in found if each]


WEIRD: list[Any] = [
    None, True, -1, 0, 1, 255, 256, 2**31, 2**63, 2**64, 10**40, 1.5, float("1e308"), "", "0", "x", "\ud800", "1" * 44,
    "é" * 40, "[", [], [[]], [None], [-1], [10**30], {}, {"a": {}}, {"pubkey": 1}, "=" * 88, ["", "base64"],
    ["AAAA", "base64+zstd"], ["KLUv_Q", "zip"],
]  # fmt: skip


def spoiled(documents: list[Any]) -> st.SearchStrategy[Any]:
    """A real document with one to three of its values replaced, removed or repeated, at any depth.

    Documents are drawn by number: Hypothesis may show a strategy with what it draws from, and that would be long.
    """

    @st.composite
    def spoil(draw: st.DrawFn) -> Any:
        document = copy.deepcopy(documents[draw(st.integers(0, len(documents) - 1))])
        for _ in range(draw(st.integers(1, 3))):
            _spoil_once(draw, document)
        return document

    return spoil()


def _spoil_once(draw: st.DrawFn, document: Any) -> None:
    holder: Any = document
    for _ in range(draw(st.integers(0, 9))):
        inner = [each for each in _values(holder) if isinstance(each, dict | list) and each]
        if not inner:
            break
        holder = inner[draw(st.integers(0, len(inner) - 1))]
    places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not places:
        return
    place = draw(st.sampled_from(places))
    how = draw(st.sampled_from(["replace", "replace", "replace", "remove", "swap"]))
    if how == "replace":
        holder[place] = copy.deepcopy(draw(st.sampled_from(WEIRD)))
    elif how == "remove":
        del holder[place]
    else:
        holder[place] = copy.deepcopy(holder[draw(st.sampled_from(places))])


def _values(holder: Any) -> list[Any]:
    return list(holder.values()) if isinstance(holder, dict) else list(holder)

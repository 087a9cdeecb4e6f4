"""Both cores give the same for spoilt accounts and logs. A case follows from its seed, so a difference comes again."""

import random
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import msgspec
import pybase64
import pytest

from headrace.cores import UNREADABLE, AccountText, Core, TransactionText, installed, open_core
from headrace.decoders.compiler import Layout
from headrace.decoders.registry import Counts, LayoutTable, Program, Programs
from headrace.model.facts import Origin
from headrace.model.updates import AccountUpdate, LogsUpdate
from tests.ingest.mainnet import account_updates, landed, logs_view

pytestmark = pytest.mark.skipif("rust" not in installed(), reason="headrace-native is not installed: make fast")

Part: TypeAlias = tuple[Program, Layout, bytes]
Outcome: TypeAlias = AccountText | TransactionText | str

BYTES_MAX = 12_000
TEXTS = (
    "Log truncated",
    "Program log: ",
    "Program data: ",
    "Program data: AAAA",
    "Program data: !",
    "Program data: 4pSA 4pSA",
    "Program log: ray_log: A",
    "Program log: \u0661 \u2028",
    "Program 11111111111111111111111111111111 invoke [\uff11]",
    "Program 11111111111111111111111111111111 invoke [01]",
    "Program 11111111111111111111111111111111 success",
    "Program 11111111111111111111111111111111 failed: custom program error: 0x1",
    "Program consumption: 5 units remaining",
    "",
)


class Cores:
    """Both cores, each with programs of its own, so that what they count can be compared."""

    def __init__(self) -> None:
        self.programs = {name: Programs.load() for name in ("python", "rust")}
        self._cores = [open_core(name, programs) for name, programs in self.programs.items()]

    def same(self, give: Callable[[Core], AccountText | TransactionText], seed: int) -> Outcome:
        """Return what both cores give: a text, or an error's name."""
        python, rust = (_outcome(give, core) for core in self._cores)
        assert rust == python, f"seed {seed}"
        return python

    def check_counts(self) -> None:
        """Check that both cores counted the same drift."""
        python, rust = (_counted(programs) for programs in self.programs.values())
        assert rust == python


def _outcome(give: Callable[[Core], AccountText | TransactionText], core: Core) -> Outcome:
    try:
        text = give(core)
    except UNREADABLE as error:
        return type(error).__name__
    if isinstance(text, AccountText):
        return text
    return TransactionText(tuple(text.events), tuple(text.instructions), text.body, tuple(text.unread))


def _counted(programs: Programs) -> dict[tuple[str, str], Counts]:
    return {(name, kind): counts for name, kind, counts in programs.drift if kind != "instruction"}


@pytest.fixture(scope="module")
def cores() -> Cores:
    return Cores()


@cache
def parts(kind: str) -> list[Part]:
    """Return every layout of accounts or events that a discriminator finds."""

    def table(program: Program) -> LayoutTable:
        return program.account_table if kind == "account" else program.event_table

    programs = Programs.load().by_id.values()
    return [(each, layout, mark) for each in programs for mark, (layout, _, _) in table(each).by_mark.items()]


@cache
def real_accounts() -> list[AccountUpdate]:
    return list(account_updates())


@cache
def real_logs() -> list[LogsUpdate]:
    return [logs_view(update) for _, update in landed() if update.logs]


def made_up(chance: random.Random, part: Part) -> bytes:
    """Return bytes under the layout's discriminator: zeros, small numbers or any, of its length or another."""
    _, layout, mark = part
    size = layout.shape.size if layout.shape.size is not None else layout.shape.floor + chance.randrange(90)
    size = min(BYTES_MAX, max(0, size + chance.choice((0, 0, 0, 0, -1, 1, -8, 24, -size // 2))))
    match chance.randrange(3):
        case 0:
            return mark + bytes(size)
        case 1:
            return mark + bytes(chance.choices((0, 1, 2), k=size))
        case _:
            return mark + chance.randbytes(size)


def spoilt(chance: random.Random, data: bytes) -> bytes:
    """Return the data, often cut, longer or with other bytes."""
    spoiling = bytearray(data)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 5))):
        if not spoiling:
            break
        match chance.randrange(4):
            case 0:
                del spoiling[chance.randrange(len(spoiling)) :]
            case 1:
                spoiling += chance.randbytes(chance.randrange(40))
            case 2:
                spoiling[chance.randrange(len(spoiling))] = chance.choice((0, 1, 2, 127, 128, 255))
            case _:
                at = chance.randrange(len(spoiling))
                spoiling[at : at + 8] = chance.choice((bytes(8), b"\xff" * 8, chance.randbytes(8)))
    return bytes(spoiling)


def account(chance: random.Random) -> AccountUpdate:
    real = chance.choice(real_accounts())
    lamports, slot = chance.choice((0, 5, 2**64 - 1)), chance.randrange(2**40)
    if chance.random() < 0.3:
        return msgspec.structs.replace(real, data=spoilt(chance, real.data), lamports=lamports, slot=slot)
    part = chance.choice(parts("account"))
    data = spoilt(chance, made_up(chance, part))
    return msgspec.structs.replace(real, owner=part[0].program_id, data=data, lamports=lamports, slot=slot)


def _event_line(chance: random.Random) -> str:
    text = pybase64.b64encode_as_string(spoilt(chance, made_up(chance, chance.choice(parts("event")))))
    return f"{chance.choice(('Program data: ', 'Program data: ', 'Program log: ray_log: ', 'Program log: '))}{text}"


def logs(chance: random.Random) -> LogsUpdate:
    """Return a real transaction's lines: left out, doubled, swapped, cut, made up, or with events of any program."""
    real = chance.choice(real_logs())
    lines = list(real.logs)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        at = chance.randrange(len(lines) + 1)
        match chance.randrange(7):
            case 0:
                del lines[at : at + chance.choice((1, 1, 3))]
            case 1:
                lines[at:at] = lines[at : at + 1]
            case 2 if at < len(lines):
                other = chance.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3 if at < len(lines):
                lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
            case 4:
                lines.insert(at, chance.choice(TEXTS))
            case 5:
                owner = chance.choice(parts("event"))[0].program_id
                lines[at:at] = [f"Program {owner} invoke [1]", _event_line(chance), f"Program {owner} success"]
            case _:
                lines.insert(at, _event_line(chance))
    return msgspec.structs.replace(real, logs=tuple(lines), slot=chance.randrange(2**40), err=None)


def check_accounts(cores: Cores, seeds: range) -> int:
    """Check one account for each seed; return how many have a layout."""
    named = 0
    for seed in seeds:
        update = account(random.Random(seed))
        origin = Origin(update.slot, None, "rpc-0", "f", "processed")
        found = cores.same(lambda core: core.account(update, f"{update.slot}:a:account:0", origin), seed)  # noqa: B023
        named += isinstance(found, AccountText) and found.name is not None
    cores.check_counts()
    return named


def check_logs(cores: Cores, seeds: range) -> int:
    """Check the lines of one transaction for each seed; return how many events they have."""
    events = 0
    for seed in seeds:
        update = logs(random.Random(seed))
        origin = Origin(update.slot, update.signature, "rpc-0", "f", "processed")
        found = cores.same(lambda core: core.transaction(update, origin, truncated=False), seed)  # noqa: B023
        events += len(found.events) if isinstance(found, TransactionText) else 0
    cores.check_counts()
    return events


def test_spoilt_accounts_give_the_same(cores: Cores) -> None:
    assert check_accounts(cores, range(300)) > 200


def test_spoilt_logs_give_the_same(cores: Cores) -> None:
    assert check_logs(cores, range(300)) > 150


@pytest.mark.long
@pytest.mark.parametrize("first", range(10_000, 1_010_000, 50_000))
def test_a_million_spoilt_accounts_give_the_same(cores: Cores, first: int) -> None:
    check_accounts(cores, range(first, first + 50_000))


@pytest.mark.long
@pytest.mark.parametrize("first", range(10_000, 1_010_000, 50_000))
def test_a_million_spoilt_logs_give_the_same(cores: Cores, first: int) -> None:
    check_logs(cores, range(first, first + 50_000))

"""The contract of every core in the register: the bytes, values and counts of decoding to dicts and encoding these."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cores import CORES, AccountText, Core, EventText, installed, open_core
from headrace.cores.bodies import TransactionFrame, account_body, transaction_body
from headrace.decoders.compiler import Layout
from headrace.decoders.events import read_events
from headrace.decoders.instructions import instructions_of
from headrace.decoders.registry import Counts, Program, Programs
from headrace.model.facts import Origin
from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate
from headrace.programs.register import ACCOUNTS, EVENTS
from tests.ingest.mainnet import account_updates, landed, logs_view

PROGRAMS, ORACLE = Programs.load(), Programs.load()
LAYOUTS: list[tuple[Program, Layout, bytes, str]] = [
    (program, layout, mark, kind)
    for program in PROGRAMS.by_id.values()
    for kind, table in (("account", program.account_table), ("event", program.event_table))
    for mark, (layout, _, _) in table.by_mark.items()
]
"""Every layout that a discriminator finds."""

ORIGIN = Origin(7, None, "rpc-0", "f", "processed")
SIGNATURE = "5" * 88


@pytest.fixture(scope="module", params=list(CORES))
def core(request: pytest.FixtureRequest) -> Core:
    if request.param not in installed():
        pytest.skip("headrace-native is not installed: make fast")
    return open_core(request.param, PROGRAMS)


def account_of(owner: str, data: bytes, **changes: Any) -> AccountUpdate:
    given = {"source": "rpc-0", "feed": "f", "received_ns": 0, "slot": 7, "pubkey": owner, "lamports": 5, **changes}
    return AccountUpdate(owner=owner, data=data, **given)


def expected_account(update: AccountUpdate, event_id: str, origin: Origin) -> AccountText:
    """Return what decoding to a dict and encoding the dict gives."""
    program = ORACLE.by_id.get(update.owner)
    account = None if program is None else program.account(update.data)
    if program is None or account is None:
        shown = update.owner if program is None else program.name
        return AccountText(None, account_body(update, event_id, origin, shown, None, b"null"), {})
    fields = program.accounts[account.name].encode_json(account.data)
    meaning = ACCOUNTS.get((program.name, account.name))
    values = {} if meaning is None else {n: v for n, v in account.data.items() if meaning.wants(n)}
    return AccountText(account.name, account_body(update, event_id, origin, program.name, account.name, fields), values)


def expected_events(update: LogsUpdate | TransactionUpdate, origin: Origin) -> Iterator[EventText]:
    for found in read_events(update, ORACLE).events:
        event = found.decode()
        fields = ORACLE.by_name[event.program].events[event.name].encode_json(event.data)
        meaning = EVENTS.get((event.program, event.name))
        values = {} if meaning is None else {n: v for n, v in event.data.items() if meaning.wants(n)}
        body = TransactionFrame(origin).event(event, event.path, event.ordinal, fields)
        yield EventText(msgspec.structs.replace(event, data=values), body)


def counted(programs: Programs) -> dict[tuple[str, str], Counts]:
    return {(name, kind): counts for name, kind, counts in programs.drift if kind != "instruction"}


def check_account(core: Core, update: AccountUpdate, origin: Origin = ORIGIN) -> None:
    event_id = f"{update.slot}:{update.pubkey}:account:0"
    assert core.account(update, event_id, origin) == expected_account(update, event_id, origin)


def check_transaction(core: Core, update: LogsUpdate | TransactionUpdate, *, truncated: bool = False) -> None:
    version = update.version if isinstance(update, TransactionUpdate) else None
    origin = Origin(update.slot, update.signature, "rpc-0", "f", "confirmed", False, version)
    text = core.transaction(update, origin, truncated=truncated)
    expected = list(expected_events(update, origin))
    assert list(text.events) == expected
    named = instructions_of(update, ORACLE) if isinstance(update, TransactionUpdate) else []
    assert list(text.instructions) == named
    events = [each.event for each in expected]
    body = transaction_body(update, TransactionFrame(origin), events, named, truncated=truncated)
    assert (text.body, list(text.unread)) == (body, [])


def test_real_accounts_whole_cut_longer_and_spoilt(core: Core) -> None:
    for update in account_updates():
        data = update.data
        for form in (data, data[:-1], data[: len(data) // 2], data + bytes(9), data + b"\1", data[:8] + b"\xff" * 60):
            check_account(core, msgspec.structs.replace(update, data=form))


def test_real_transactions_as_logs_and_whole(core: Core) -> None:
    for _, update in landed():
        check_transaction(core, update)
        logs = logs_view(update)
        check_transaction(core, logs)
        check_transaction(core, msgspec.structs.replace(logs, err={"InstructionError": [0, {"Custom": 1}]}))
        lines = (*logs.logs[: len(logs.logs) // 2], "Log truncated")
        check_transaction(core, msgspec.structs.replace(logs, logs=lines), truncated=True)


@pytest.mark.parametrize("commitment", ["processed", "confirmed", "finalized"])
def test_texts_that_need_escapes_are_escaped(core: Core, commitment: Any) -> None:
    update = next(account_updates())
    origin = Origin(7, 'sig"\\', 'rpc"0', "f", commitment)
    check_account(
        core, msgspec.structs.replace(update, pubkey='k"\n\u2028ü', signature='sig"\\', source='rpc"0'), origin
    )
    (_, whole), *_ = landed()
    check_transaction(core, msgspec.structs.replace(logs_view(whole), signature='s"\\'))


lengths = st.sampled_from((0, 0, 0, -1, 1, -8, 24))
texts = st.text(max_size=40) | st.sampled_from(['"', "\\", "\x00", "\x7f", "\u2028", "𝒳", "%s"])


@st.composite
def parts(draw: st.DrawFn) -> tuple[Program, Layout, bytes, str]:
    """Bytes under a discriminator: small numbers, which fit most layouts, or any; the layout's length or near."""
    program, layout, mark, kind = draw(st.sampled_from(LAYOUTS))
    size = layout.shape.size if layout.shape.size is not None else layout.shape.floor + draw(st.integers(0, 90))
    size = max(0, size + draw(lengths))
    small = st.binary(min_size=size, max_size=size).map(lambda raw: bytes(byte % 3 for byte in raw))
    body = draw(small | st.binary(min_size=size, max_size=size) | st.just(bytes(size)))
    return program, layout, mark + body[:12_000], kind


@given(parts(), st.integers(0, 2**64 - 1))
def test_any_account_or_event_gives_what_the_dicts_give(
    core: Core, part: tuple[Program, Layout, bytes, str], lamports: int
) -> None:
    program, _, data, kind = part
    if kind == "account":
        check_account(core, account_of(program.program_id, data, lamports=lamports))
        return
    text = pybase64.b64encode_as_string(data)
    lines = (
        f"Program {program.program_id} invoke [1]",
        f"Program data: {text}",
        f"Program {program.program_id} success",
    )
    update = LogsUpdate(source="s", feed="f", received_ns=0, slot=lamports, signature=SIGNATURE, err=None, logs=lines)
    check_transaction(core, update)


@pytest.mark.long
@given(st.data())
def test_spoilt_logs_give_what_the_dicts_give(core: Core, data: st.DataObject) -> None:
    """Lines left out, doubled, swapped, of another program, cut within, or made up."""
    whole = data.draw(st.sampled_from([update for _, update in landed() if update.logs]))
    lines = list(logs_view(whole).logs)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["out", "double", "swap", "cut", "own", "truncated"])):
            case "out" if len(lines) > 1:
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "swap":
                other = data.draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "cut":
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
            case "own":
                lines.insert(at, data.draw(st.sampled_from(["Program data: ", "Program log: ", ""])) + data.draw(texts))
            case "truncated":
                lines.insert(at, "Log truncated")
    check_transaction(core, msgspec.structs.replace(logs_view(whole), logs=tuple(lines), err=None))


def test_drift_is_counted_as_the_dicts_count(core: Core) -> None:
    """Each short, longer and odd part once."""
    before, oracle_before = counted(PROGRAMS), counted(ORACLE)
    for update in account_updates():
        for form in (update.data, update.data[:-1], update.data + b"\1", b"\1" + update.data):
            check_account(core, msgspec.structs.replace(update, data=form))
    for _, whole in landed():
        check_transaction(core, logs_view(whole))
    for key, counts in counted(PROGRAMS).items():
        for name in ("decoded", "unknown", "longer", "leftover_bytes", "short"):
            grown = getattr(counts, name) - getattr(before[key], name)
            assert grown == getattr(counted(ORACLE)[key], name) - getattr(oracle_before[key], name), (key, name)


def test_what_no_node_sends_is_read_all_the_same(core: Core) -> None:
    """Numbers beyond 64 bits and text without UTF-8, as a recording or a caller of this package may bring them."""
    update = next(account_updates())
    check_account(core, msgspec.structs.replace(update, lamports=2**64))
    check_account(core, msgspec.structs.replace(update, lamports=-1, slot=2**70))
    (_, whole), *_ = landed()
    logs = logs_view(whole)
    check_transaction(core, msgspec.structs.replace(logs, logs=(*logs.logs, "Program log: \ud800")))

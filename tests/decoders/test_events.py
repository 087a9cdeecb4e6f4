"""Events: every real file gives what the index names, each once; forgeries, losses and repeats give nothing wrong."""

from collections import Counter
from typing import Any

import msgspec
import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from headrace.decoders.events import EVENT_TAG, events_of, read_events
from headrace.decoders.logs import TRUNCATED
from headrace.model.updates import Instruction, LogsUpdate, TransactionUpdate
from tests.mainnet import PUMP, STAMP, Entry, entries, entry, programs, update

STRANGER = "routeUGWgWzqBWFcrCfv8tritsqukccJPu3q5GPP3xS"
SELL = update(entry("2KBsKB7x").file)
"""A v1 transaction whose router (top-level 1) calls pump's sell (1, 0), which emits one TradeEvent at (1, 3)."""

RENAMED = {"meteora_damm_v2.unknown_1b3c15d58aaabb93": "meteora_cp_amm.EvtSwap"}
"""The index calls this program by its other name, and did not know this event, which its program no longer emits."""


def _expected(facts: dict[str, Any]) -> Counter[tuple[str, str, str]]:
    """(program, event, via) → count. The index counts calls and log lines apart; where there are both, calls count."""
    named: dict[str, int] = facts["events"]
    expected: Counter[tuple[str, str, str]] = Counter()
    for name, count in named.items():
        bare = name.removesuffix("(log)")
        in_log = bare != name or bare.endswith(".ray_log")
        if bare == name or bare not in named:
            program, event = RENAMED.get(bare, bare.replace("meteora_damm_v2", "meteora_cp_amm")).split(".")
            expected[program, event, "log" if in_log else "cpi"] += count
    return expected


def _logs_of(told: TransactionUpdate, logs: tuple[str, ...] | None = None) -> LogsUpdate:
    lines = told.logs if logs is None else logs
    return LogsUpdate(**STAMP, slot=told.slot, signature=told.signature, err=told.err, logs=lines or ())


@pytest.mark.parametrize("each", entries(), ids=lambda each: each.file)
def test_every_real_transaction_has_the_events_that_the_index_names(each: Entry) -> None:
    reading = read_events(update(each.file), programs(), failed=True)
    events = [found.decode() for found in reading.events]
    assert Counter((event.program, event.name, event.via) for event in events) == _expected(each.facts)
    assert (reading.forged, reading.uncertain) == (0, 0)


@pytest.mark.parametrize("each", entries(), ids=lambda each: each.file)
def test_every_event_is_read_to_its_last_byte_and_can_be_written(each: Entry) -> None:
    for event in events_of(update(each.file), programs(), failed=True):
        assert event.leftover == 0
        layout = programs().by_name[event.program].events[event.name]
        assert set(msgspec.json.decode(layout.encode_json(event.data))) == set(event.data)


@pytest.mark.parametrize("each", entries(), ids=lambda each: each.file)
def test_logs_alone_give_the_same_events_where_programs_log_them(each: Entry) -> None:
    """Same bytes, same place, same number: what came as log lines first is known again in the whole transaction."""
    told = update(each.file)
    whole = {(e.program, e.name, e.path, e.ordinal): e.data for e in events_of(told, programs(), failed=True)}
    logged = events_of(_logs_of(told), programs(), failed=True)
    in_both = [e for e in logged if (e.program, e.name, e.path, e.ordinal) in whole]
    assert len(in_both) == len(logged)
    assert all(whole[e.program, e.name, e.path, e.ordinal] == e.data for e in in_both)
    assert len(logged) == sum(
        count for name, count in each.facts["events"].items() if name.endswith(("(log)", "ray_log"))
    )


def test_a_sell_value_by_value() -> None:
    (event,) = events_of(SELL, programs())
    assert (event.program, event.program_id, event.name, event.via) == ("pump", PUMP, "TradeEvent", "cpi")
    assert (event.path, event.ordinal, event.truncated) == ((1, 0), 0, False)
    data = event.data
    assert data["mint"] == "Cu6K6CL6A9UV17sCfXJfkP9PZvvbvKhKP5miM8eJpump"
    assert (data["sol_amount"], data["token_amount"], data["is_buy"]) == (3_392_434_780, 70_135_987_937_292, False)
    assert data["user"] == "2GBkFfJwjMkFTNvng4eUKgGi2reR7MxcPVWye8ai8pvU"
    assert (data["virtual_sol_reserves"], data["virtual_token_reserves"]) == (37_799_196_760, 851_605_398_289_257)
    moved = {b.account: b.amount for b in SELL.pre_token_balances}
    after = {b.account: b.amount for b in SELL.post_token_balances}
    curve = next(
        b.account for b in SELL.post_token_balances if b.owner == "E3KkQqtemUN5N1nUp2sPkkPDg2u1wjpmK1t7mySUuq6T"
    )
    assert after[curve] - moved[curve] == data["token_amount"]


def test_a_whole_life_of_a_coin_in_order() -> None:
    names = [
        [f"{event.program}.{event.name}" for event in events_of(update(each.file), programs())]
        for each in entries()
        if each.kind == "local_bank"
    ]
    assert names == [
        ["pump.CreateEvent"],
        ["pump.TradeEvent"],
        ["pump.TradeEvent"],
        ["pump.TradeEvent", "pump.CompleteEvent"],
        ["pump_amm.CreatePoolEvent", "pump_amm.InitBoostEvent", "pump.CompletePumpAmmMigrationEvent"],
    ]


def test_events_of_logs_and_calls_come_in_the_order_of_execution() -> None:
    found = events_of(update(entry("213kMyMK").file), programs())
    assert [(event.program, event.name, event.via, event.path, event.ordinal) for event in found] == [
        ("meteora_dlmm", "Swap", "cpi", (2, 1), 0),
        ("meteora_dlmm", "Swap2Evt", "cpi", (2, 1), 1),
        ("raydium_cpmm", "SwapEvent", "log", (2, 6), 0),
        ("raydium_cpmm", "SwapEvent", "log", (2, 12), 0),
        ("jupiter_v6", "SwapsEvent", "cpi", (2,), 0),
    ]


def test_a_failed_transaction_has_no_events_unless_they_are_asked_for() -> None:
    for start in ("3GufGVVR", "64443fd3"):
        told = update(entry(start).file)
        assert told.err is not None
        assert events_of(told, programs()) == []
        assert events_of(_logs_of(told), programs()) == []
        assert events_of(told, programs(), failed=True)


# Logs stand in where calls are missing


def test_a_cut_log_and_all_calls_give_every_event_once() -> None:
    told = update(entry("2r4uXUJt").file)
    assert TRUNCATED in (told.logs or ())
    assert [(event.via, event.truncated) for event in events_of(told, programs())] == [("cpi", False)] * 3
    logged = events_of(_logs_of(told), programs())
    assert [(event.via, event.truncated) for event in logged] == [("log", True)] * 2


def test_without_inner_instructions_the_log_tells() -> None:
    told = replace(SELL, instructions=tuple(each for each in SELL.instructions if len(each.path) == 1))
    (event,) = events_of(told, programs())
    assert (event.via, event.data) == ("log", events_of(SELL, programs())[0].data)


def test_equal_events_are_counted_one_for_one() -> None:
    """Two equal trades stay two: both logged, one of them also recorded by a call."""
    lines = SELL.logs or ()
    start = next(n for n, line in enumerate(lines) if line.endswith("invoke [1]") and "rapidV5" in line)
    end = next(n for n, line in enumerate(lines) if line.startswith("Program rapidV5") and line.endswith("success"))
    twice = replace(SELL, logs=(*lines[: end + 1], *lines[start : end + 1], *lines[end + 1 :]))
    found = events_of(twice, programs())
    assert [event.via for event in found] == ["cpi", "log"]
    assert found[0].data == found[1].data
    assert [event.path for event in events_of(_logs_of(twice), programs())] == [(1, 0), (2, 0)]


def test_a_call_counts_without_stack_heights_too() -> None:
    bare = tuple(replace(each, stack_height=None) if len(each.path) == 2 else each for each in SELL.instructions)
    (event,) = events_of(replace(SELL, instructions=bare, logs=None), programs())
    assert (event.via, event.path) == ("cpi", (1, 0))


def _is_event(instruction: Instruction) -> bool:
    return (instruction.data or b"").startswith(EVENT_TAG)


# Forgeries


def _event_call() -> Instruction:
    return next(each for each in SELL.instructions if _is_event(each))


def _with_call(call: Instruction, **changes: Any) -> TransactionUpdate:
    """The sell's transaction with its event call replaced, without logs."""
    others = tuple(replace(call, **changes) if each is call else each for each in SELL.instructions)
    return replace(SELL, instructions=others, logs=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"accounts": (STRANGER,)},
        {"accounts": ()},
        {"accounts": (STRANGER, "Ce6TQqeHC9p8KetsN6JsjHK7UTZk7nasjjnr7XxXp9F1")},
        {"stack_height": 2},
        {"stack_height": 1},
        {"stack_height": 64},
        {"path": (1,), "stack_height": 1},
    ],
)
def test_a_call_that_only_looks_like_an_event_is_refused_and_counted(changes: dict[str, Any]) -> None:
    reading = read_events(_with_call(_event_call(), **changes), programs())
    assert (reading.events, reading.forged) == ([], 1)


def test_a_stranger_with_the_bytes_of_a_pump_event_is_no_pump_event() -> None:
    reading = read_events(_with_call(_event_call(), program_id=STRANGER), programs())
    assert (reading.events, reading.forged) == ([], 0)


def test_a_call_without_stack_height_needs_its_program_to_have_run_before() -> None:
    call = _event_call()
    others = tuple(
        replace(
            each,
            stack_height=None,
            program_id=STRANGER if each.program_id == PUMP and each is not call else each.program_id,
        )
        for each in SELL.instructions
    )
    reading = read_events(replace(SELL, instructions=others, logs=None), programs())
    assert (reading.events, reading.forged) == ([], 1)


def _through_a_stranger(*, logs: bool, heights: bool) -> TransactionUpdate:
    """The sell's transaction, in which pump called a stranger, who made the call that looks like pump's event."""
    call = _event_call()
    at = SELL.instructions.index(call)
    stranger = replace(call, program_id=STRANGER, data=b"", stack_height=3)
    forged = replace(call, path=(1, call.path[1] + 1), stack_height=4)
    changed = [*SELL.instructions[:at], stranger, forged]
    changed += [
        replace(each, path=(1, each.path[1] + 1)) if each.path[0] == 1 and len(each.path) == 2 else each
        for each in SELL.instructions[at + 1 :]
    ]
    if not heights:
        changed = [replace(each, stack_height=None) if len(each.path) == 2 else each for each in changed]
    return replace(SELL, instructions=tuple(changed), logs=_frames(SELL, stranger, call) if logs else None)


def _frames(update: TransactionUpdate, stranger: Instruction, call: Instruction) -> tuple[str, ...]:
    """The log's frames for it, with nothing logged in between."""
    lines: list[str] = []
    open_programs: list[str] = []

    def enter(program_id: str, height: int) -> None:
        while len(open_programs) >= height:
            lines.append(f"Program {open_programs.pop()} success")
        open_programs.append(program_id)
        lines.append(f"Program {program_id} invoke [{height}]")

    for each in update.instructions:
        if each is call:
            enter(stranger.program_id, 3)
            enter(each.program_id, 4)
        else:
            enter(each.program_id, each.stack_height or 1)
    lines += [f"Program {program_id} success" for program_id in reversed(open_programs)]
    return tuple(lines)


@pytest.mark.parametrize(("logs", "heights"), [(True, True), (True, False), (False, True), (False, False)])
def test_an_event_call_by_a_stranger_whom_the_program_called_is_refused(logs: bool, heights: bool) -> None:
    reading = read_events(_through_a_stranger(logs=logs, heights=heights), programs())
    assert reading.events == []
    assert (reading.forged, reading.uncertain) == ((1, 0) if logs or heights else (0, 1))


def test_log_lines_tell_the_caller_where_heights_are_missing() -> None:
    bare = tuple(replace(each, stack_height=None) if len(each.path) == 2 else each for each in SELL.instructions)
    (event,) = events_of(replace(SELL, instructions=bare), programs())
    assert (event.via, event.path) == ("cpi", (1, 0))


def test_a_stranger_that_logs_the_bytes_of_a_pump_event_is_no_pump_event() -> None:
    data = next(line for line in SELL.logs or () if line.startswith("Program data: "))
    lines = (f"Program {STRANGER} invoke [1]", data, f"Program {STRANGER} success")
    assert read_events(_logs_of(SELL, lines), programs()) == ([], 0, 0)
    said = (
        f"Program {STRANGER} invoke [1]",
        f"Program log: Program {PUMP} invoke [2]",
        data,
        f"Program log: x\nProgram {PUMP} invoke [2]\n{data}\nProgram {PUMP} success",
        f"Program {STRANGER} success",
    )
    assert read_events(_logs_of(SELL, said), programs()) == ([], 0, 0)


def test_frames_at_a_wrong_depth_give_no_event() -> None:
    data = next(line for line in SELL.logs or () if line.startswith("Program data: "))
    lines = (f"Program {STRANGER} invoke [1]", f"Program {PUMP} invoke [3]", data, f"Program {PUMP} success")
    assert read_events(_logs_of(SELL, lines), programs()) == ([], 0, 1)


@pytest.mark.parametrize("text", ["AAAA AAAA", "not base64", "", "A", "vdt/007mYe4", "é"])
def test_logged_data_that_is_no_event(text: str) -> None:
    lines = (f"Program {PUMP} invoke [1]", f"Program data: {text}", f"Program {PUMP} success")
    assert events_of(_logs_of(SELL, lines), programs()) == []


def test_a_ray_log_is_of_the_program_that_writes_such() -> None:
    told = update(entry("54MFrVcf").file)
    (event,) = events_of(told, programs())
    text = next(line for line in told.logs or () if "ray_log: " in line).split("ray_log: ")[1]
    assert (event.program, event.name, event.via) == ("raydium_amm_v4", "ray_log", "log")
    amm = event.program_id
    as_data = (f"Program {amm} invoke [1]", f"Program data: {text}", f"Program {amm} success")
    assert events_of(_logs_of(told, as_data), programs()) == []
    trade = next(line for line in SELL.logs or () if line.startswith("Program data: ")).removeprefix("Program data: ")
    as_text = (f"Program {PUMP} invoke [1]", f"Program log: ray_log: {trade}", f"Program {PUMP} success")
    assert events_of(_logs_of(told, as_text), programs()) == []


def test_a_precompile_that_logs_nothing_does_not_shift_the_places_of_a_whole_transaction() -> None:
    check = Instruction(
        program_id="Ed25519SigVerify111111111111111111111111111", accounts=(), data=b"", path=(0,), stack_height=1
    )
    shifted = tuple(replace(each, path=(each.path[0] + 1, *each.path[1:])) for each in SELL.instructions)
    told = replace(SELL, instructions=(check, *shifted))
    assert [event.path for event in events_of(told, programs())] == [(2, 0)]
    assert [event.path for event in events_of(_logs_of(told), programs())] == [(1, 0)]
    unread = tuple(replace(each, data=None) if _is_event(each) else each for each in shifted)
    found = events_of(replace(SELL, instructions=(check, *unread)), programs())
    assert [(event.via, event.path) for event in found] == [("log", (2, 0))]


# Cut and spoiled


@pytest.mark.parametrize("start", ["2KBsKB7x", "4ARos3Yq", "33LHUzKf", "Q27PiYUC"])
def test_a_log_cut_at_any_line_hides_events_and_invents_none(start: str) -> None:
    told = update(entry(start).file)
    lines = told.logs or ()
    whole = [(e.program_id, e.data) for e in events_of(_logs_of(told), programs())]
    for end in range(len(lines)):
        found = events_of(_logs_of(told, (*lines[:end], TRUNCATED)), programs())
        assert [(e.program_id, e.data) for e in found] == whole[: len(found)]
        assert all(event.truncated for event in found)
        both = events_of(replace(told, logs=(*lines[:end], TRUNCATED)), programs())
        assert [e.data for e in both if e.via == "cpi"] == [
            e.data for e in events_of(told, programs()) if e.via == "cpi"
        ]


@given(st.data())
def test_spoiled_instructions_never_break_the_reading(data: st.DataObject) -> None:
    told = update(data.draw(st.sampled_from(entries())).file)
    changed = list(told.instructions)
    for _ in range(data.draw(st.integers(1, 4))):
        if not changed:
            return
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = replace(
            changed[at],
            stack_height=data.draw(st.sampled_from([None, 1, 2, 3, 4, 64])),
            data=data.draw(st.sampled_from([None, b"", EVENT_TAG, EVENT_TAG + b"\0" * 9, changed[at].data])),
            path=data.draw(st.sampled_from([(0,), (0, 0), (3, 1), changed[at].path])),
        )
        if data.draw(st.booleans()):
            changed.pop(at)
    genuine = [(e.program_id, e.data) for e in events_of(told, programs(), failed=True)]
    for event in events_of(replace(told, instructions=tuple(changed)), programs(), failed=True):
        assert (event.program_id, event.data) in genuine or not any(event.data.values())


@given(st.binary(max_size=400))
def test_any_payload_of_a_program_on_board(payload: bytes) -> None:
    trade = bytes.fromhex("bddb7fd34ee661ee")
    for raw in (payload, trade + payload):
        text = pybase64.b64encode_as_string(raw)
        lines = (f"Program {PUMP} invoke [1]", f"Program data: {text}", f"Program {PUMP} success")
        for event in events_of(_logs_of(SELL, lines), programs()):
            assert event.program == "pump"

"""The invoke stack: real logs, logs cut at every line, logs that lie, logs spoiled at random."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.decoders.logs import TRUNCATED, read_logs
from tests.mainnet import PUMP, entries, log_lines, update

A = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA1"
B = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB1"
REAL = log_lines()


def _start(program: str, depth: int) -> str:
    return f"Program {program} invoke [{depth}]"


def _end(program: str) -> str:
    return f"Program {program} success"


def _data(text: str = "AAAA") -> str:
    return f"Program data: {text}"


def _attributed(*lines: str) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(each.program_id, each.text, each.path) for each in read_logs(lines).data]


def test_every_real_log_is_certain_and_whole_or_says_that_it_was_cut() -> None:
    for lines in REAL:
        reading = read_logs(lines)
        assert reading.uncertain == 0
        assert reading.truncated == (TRUNCATED in lines)
        if not reading.truncated:
            assert len(reading.data) == sum(
                line.startswith(("Program data: ", "Program log: ray_log")) for line in lines
            )


def test_paths_are_those_of_the_instructions() -> None:
    for each in entries():
        told = update(each.file)
        reading = read_logs(told.logs or ())
        by_path = {instruction.path: instruction.program_id for instruction in told.instructions}
        assert all(by_path[data.path] == data.program_id for data in reading.data)


def test_data_is_of_the_innermost_running_program() -> None:
    lines = [
        _start(A, 1), _data("QQ=="), _start(B, 2), _data("Qg=="), _start(A, 3), _data("Qw=="), _end(A), _end(B),
        _data("RA=="), _start(B, 2), _end(B), _data("RQ=="), _end(A), _start(B, 1), _data("Rg=="), _end(B),
    ]  # fmt: skip
    assert _attributed(*lines) == [
        (A, "QQ==", (0,)),
        (B, "Qg==", (0, 0)),
        (A, "Qw==", (0, 1)),
        (A, "RA==", (0,)),
        (A, "RQ==", (0,)),
        (B, "Rg==", (1,)),
    ]


def test_a_ray_log_is_text_behind_its_word() -> None:
    (found,) = read_logs([_start(A, 1), "Program log: ray_log: AwQ=", _end(A)]).data
    assert (found.text, found.ray) == ("AwQ=", True)


@pytest.mark.parametrize("after", [[_end(A)], [_start(B, 2), _end(B), _end(A)], [_data("QQ=="), _end(A)]])
def test_a_failure_that_the_caller_outlives_proves_nothing(after: list[str]) -> None:
    """No runtime lets a caller go on after a failed call; if one does, what the call logged was undone."""
    lines = [_start(A, 1), _end(A), _start(A, 1), _start(B, 2), _data(), f"Program {B} failed: custom", *after]
    reading = read_logs(lines)
    assert reading.data == []
    assert reading.uncertain == sum(line.startswith("Program data: ") for line in lines)


def test_failure_ends_frames_like_success() -> None:
    lines = [
        _start(A, 1),
        _start(B, 2),
        _data(),
        f"Program {B} failed: custom program error: 0x1",
        f"Program {A} failed: x",
    ]
    assert _attributed(*lines) == [(B, "AAAA", (0, 0))]


@pytest.mark.parametrize(
    "said",
    [
        f"Program log: Program {PUMP} invoke [2]",
        f"Program log: \nProgram {PUMP} invoke [2]",
        f"Program log: x\nProgram {PUMP} invoke [2]\nProgram data: AAAA",
        f"Program log: {TRUNCATED}",
        f"Program log: Program {A} success",
        f"Program return: {PUMP} AAAA\nProgram {A} success",
        f"Program data: AAAA\nProgram {A} success",
        f"Program data: AAAA Program {PUMP} invoke [2]",
        f"Transfer: insufficient lamports\nProgram {PUMP} invoke [2]",
        "Program consumption: 5000 units remaining",
        "Program failed to complete: Access violation",
        f"Program {PUMP}  invoke [2]",
        f"Program {PUMP} invoke [2] ",
        f" Program {PUMP} invoke [2]",
        f"Program {PUMP} invoke [2]\n",
        f"Program {PUMP} invoke [0]",
        f"Program {PUMP} invoke [+2]",
        f"Program {PUMP} invoke [٢]",
        "Program 0OIl invoke [2]",
    ],
)
def test_what_a_program_says_never_moves_the_stack(said: str) -> None:
    lines = [_start(A, 1), said, _data("Qg=="), _end(A)]
    reading = read_logs(lines)
    assert (reading.data[-1].program_id, reading.data[-1].text, reading.uncertain) == (A, "Qg==", 0)
    assert {each.program_id for each in reading.data} == {A}


@pytest.mark.parametrize(
    "lines",
    [
        [_data()],
        [_start(A, 1), _data()],
        [_start(A, 2), _data(), _end(A)],
        [_start(A, 1), _start(B, 3), _data(), _end(B), _end(A)],
        [_start(A, 1), _start(B, 1), _data(), _end(B), _end(A)],
        [_start(A, 1), _start(B, 2), _data(), _end(A)],
        [_start(A, 1), _data(), _end(B)],
        [_start(A, 1), _data(), _start(B, 2), _end(A), _end(B)],
        [_end(A), _start(A, 1), _data(), _end(A)],
        [_start(A, 1), _end(A), _end(A), _start(A, 1), _data(), _end(A)],
    ],
)
def test_frames_that_do_not_fit_prove_nothing(lines: list[str]) -> None:
    reading = read_logs(lines)
    assert (reading.data, reading.uncertain) == ([], 1)


def test_what_closed_in_order_before_stays_proven() -> None:
    lines = [_start(A, 1), _data(), _end(A), _start(B, 1), _data("Qg=="), _end(A), _start(A, 1), _data(), _end(A)]
    reading = read_logs(lines)
    assert [each.text for each in reading.data] == ["AAAA"]
    assert reading.uncertain == 2


def test_a_cut_log_proves_what_is_before_the_cut() -> None:
    lines = [_start(A, 1), _start(B, 2), _data("Qg=="), TRUNCATED, _end(B), _data("Qw=="), _end(A)]
    reading = read_logs(lines)
    assert [(each.program_id, each.text) for each in reading.data] == [(B, "Qg==")]
    assert (reading.truncated, reading.uncertain) == (True, 1)


def test_after_the_cut_a_short_line_can_not_borrow_another_program() -> None:
    """The end of B did not fit into the log any more, a short piece of A's own data did."""
    lines = [_start(A, 1), _start(B, 2), TRUNCATED, _data("Qg=="), _end(A)]
    assert read_logs(lines).data == []


@pytest.mark.parametrize("lines", [lines for lines in REAL if len(lines) < 60])
def test_cut_at_every_line_gives_a_beginning_of_the_whole(lines: tuple[str, ...]) -> None:
    whole = read_logs(lines).data
    for end in range(len(lines) + 1):
        unclosed = read_logs(lines[:end]).data
        assert unclosed == whole[: len(unclosed)]
        marked = read_logs([*lines[:end], TRUNCATED])
        assert marked.data == whole[: len(marked.data)]
        assert len(marked.data) >= len(unclosed)
        assert marked.truncated


def test_cut_at_ten_thousand_bytes_as_a_node_does() -> None:
    lines = next(lines for lines in REAL if sum(map(len, lines)) > 8000)
    for limit in range(0, sum(map(len, lines)), 97):
        written, kept = 0, list[str]()
        for line in lines:
            if written + len(line) < limit:
                written += len(line)
                kept.append(line)
            elif TRUNCATED not in kept:
                kept.append(TRUNCATED)
        whole = read_logs(lines).data
        reading = read_logs(kept)
        assert reading.data == whole[: len(reading.data)]


LINES = st.one_of(
    st.sampled_from([line for lines in REAL[:8] for line in lines]),
    st.sampled_from([_start(A, 1), _start(A, 2), _start(B, 2), _end(A), _end(B), _data(), TRUNCATED, ""]),
    st.text(max_size=60),
    st.text(max_size=30).map("Program data: ".__add__),
)


@given(st.lists(LINES, max_size=60))
def test_any_lines_are_read_and_all_data_is_accounted_for(lines: list[str]) -> None:
    reading = read_logs(lines)
    written = sum(line.startswith(("Program data: ", "Program log: ray_log: ")) for line in lines)
    swallowed = sum(line.startswith("Program data: ") and line.endswith(" compute units") for line in lines)
    assert len(reading.data) + reading.uncertain == written - swallowed


@pytest.mark.parametrize("lines", [lines for lines in REAL if TRUNCATED not in lines and len(lines) < 100])
def test_a_lost_line_loses_data_and_never_gives_it_to_another_program(lines: tuple[str, ...]) -> None:
    truth = {(each.program_id, each.text) for each in read_logs(lines).data}
    for at in range(len(lines)):
        reading = read_logs((*lines[:at], *lines[at + 1 :]))
        assert {(each.program_id, each.text) for each in reading.data} <= truth

"""Test the file of facts that wait: every fact as it was, cuts and damage at every byte, and one process at a time."""

from pathlib import Path

import msgspec
import pytest

from headrace.history import Kept
from headrace.history.spill import Spill
from headrace.model.errors import TransientError
from headrace.model.facts import Dead, Gap, GapDeclared, Proof, SlotChanged, TokenCreated, Traded
from tests.history_facts import key, token, trade

MIB = 1024 * 1024

FACTS: list[Kept] = [
    trade(7, "a", base=2**64 - 1, mint=None, quote_mint=None, side="sell", decimals=(None, 9), again=True),
    token(8, "b", commitment="confirmed"),
    SlotChanged(9, "finalized", None, "rpc-0"),
    GapDeclared(Gap("g", 1, 2, "open", "lost"), "logs:P", "pump"),
    Dead(7, "fork"),
    Proof(7, ("x",), (), ("y", "z")),
]


def opened(path: Path) -> Spill:
    return Spill(path, bytes_max=MIB)


def without_body(fact: Kept) -> Kept:
    """The fact without what a history does not keep of its event."""
    if not isinstance(fact, Traded | TokenCreated):
        return fact
    body = msgspec.structs.replace(fact.seen.body, text=b"", data=0, fields=0, end=0)
    return msgspec.structs.replace(fact, seen=msgspec.structs.replace(fact.seen, body=body))


def drained(spill: Spill) -> list[list[Kept]]:
    found = []
    while spill.frames:
        found.append(spill.read())
        spill.remove()
    return found


def test_facts_come_back_as_they_were_and_in_order(tmp_path: Path) -> None:
    spill = opened(tmp_path / "s")
    assert spill.append(FACTS) == []
    assert spill.append([trade(10, "c")]) == []
    assert spill.read() == [without_body(fact) for fact in FACTS]
    spill.remove()
    assert spill.append([trade(11, "d")]) == []
    assert drained(spill) == [[without_body(trade(10, "c"))], [without_body(trade(11, "d"))]]
    assert (tmp_path / "s").stat().st_size == 0
    spill.close()


def test_what_no_file_can_hold_is_returned_and_the_rest_is_kept(tmp_path: Path) -> None:
    spill = opened(tmp_path / "s")
    wide = trade(7, "a", base=2**64)
    odd = msgspec.structs.replace(token(8, "b"), name="\ud83d")
    assert spill.append([wide, odd, trade(9, "c")]) == [wide, odd]
    assert drained(spill) == [[without_body(trade(9, "c"))]]
    spill.close()


def test_an_opened_file_has_what_an_earlier_process_left(tmp_path: Path) -> None:
    spill = opened(tmp_path / "s")
    for name in "abc":
        spill.append([trade(7, name)])
    spill.remove()
    spill.close()
    again = opened(tmp_path / "s")
    assert again.frames == 3  # a frame that was read may come again
    again.append([trade(8, "d")])
    expected = [*(trade(7, name) for name in "abc"), trade(8, "d")]
    assert drained(again) == [[without_body(fact)] for fact in expected]
    again.close()


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.long)])
def test_a_file_cut_or_damaged_at_any_byte_gives_whole_batches_from_its_beginning(tmp_path: Path, step: int) -> None:
    spill = opened(tmp_path / "s")
    batches = [[without_body(trade(7, name))] for name in "abc"]
    for batch in batches:
        spill.append(batch)
    spill.close()
    whole = (tmp_path / "s").read_bytes()
    harmed = [whole[:at] for at in range(0, len(whole), step)]
    harmed += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), step)]
    for data in harmed:
        (tmp_path / "s").write_bytes(data)
        spill = opened(tmp_path / "s")
        found = drained(spill)
        assert found == batches[: len(found)]
        assert len(found) < 3
        spill.append(batches[0])
        assert drained(spill) == batches[:1]
        spill.close()


def test_a_file_has_one_process(tmp_path: Path) -> None:
    spill = opened(tmp_path / "s")
    with pytest.raises(TransientError, match="another process has the file s"):
        opened(tmp_path / "s")
    spill.close()
    opened(tmp_path / "s").close()


def test_a_file_is_full_at_its_limit(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "s", bytes_max=1_000)
    for _ in range(100):
        if not spill.is_full:
            spill.append([trade(7, key("a"))])
    assert 1_000 <= (tmp_path / "s").stat().st_size < 2_000
    spill.close()

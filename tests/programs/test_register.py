"""Program folders: each has an IDL, and its facts name only what that IDL has."""

import pytest

from headrace.decoders.registry import Programs
from headrace.programs import SHIPPED
from headrace.programs.register import ACCOUNTS, EVENTS, PROGRAMS

BOARD = Programs.load().by_name


def test_every_folder_with_an_idl_is_a_program_on_board() -> None:
    assert {path.parent.name for path in SHIPPED.glob("*/idl.json")} == BOARD.keys()


def test_every_folder_with_facts_is_found_and_has_an_idl() -> None:
    assert {path.parent.name for path in SHIPPED.glob("*/facts.py")} == PROGRAMS.keys()
    assert PROGRAMS.keys() <= BOARD.keys()


@pytest.mark.parametrize("key", sorted(EVENTS))
def test_every_event_with_a_meaning_is_in_the_idl(key: tuple[str, str]) -> None:
    program, name = key
    layout, facts = BOARD[program].events[name], EVENTS[key]
    assert set(facts.pool or ()) <= set(layout.names)
    assert facts.repeats is None or facts.repeats in BOARD[program].events


@pytest.mark.parametrize("key", sorted(ACCOUNTS))
def test_every_account_with_a_meaning_is_in_the_idl(key: tuple[str, str]) -> None:
    program, name = key
    layout, facts = BOARD[program].accounts[name], ACCOUNTS[key]
    assert {field for field in facts.pool or () if field is not None} <= set(layout.names)

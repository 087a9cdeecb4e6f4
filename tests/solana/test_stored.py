"""Null says that a node did not store a list, only [] says that there was nothing to store."""

import itertools
from typing import Any

import pytest

from headrace.solana.rpc_json import not_stored

WHOLE: dict[str, Any] = {"err": None, "innerInstructions": [], "logMessages": []}


def test_empty_lists_are_whole() -> None:
    assert not_stored({"meta": WHOLE}) == ()


@pytest.mark.parametrize("name", ["innerInstructions", "logMessages"])
@pytest.mark.parametrize("err", [None, {"InstructionError": [0, {"Custom": 1}]}])
@pytest.mark.parametrize("absent", [False, True])
def test_null_and_absent_are_not_stored(name: str, err: object, absent: bool) -> None:
    meta = {**WHOLE, "err": err, name: None}
    if absent:
        del meta[name]
    assert not_stored({"meta": meta}) == (name,)


@pytest.mark.parametrize("err", ["AccountNotFound", "ProgramAccountNotFound", {"InsufficientFundsForRent": {}}])
def test_what_was_charged_but_not_executed_has_nothing_to_store(err: object) -> None:
    lists: tuple[list[str] | None, ...] = (None, [])
    for inner, logs in itertools.product(lists, repeat=2):
        assert not_stored({"meta": {"err": err, "innerInstructions": inner, "logMessages": logs}}) == ()


@pytest.mark.parametrize("result", [None, {}, {"meta": None}, {"meta": 7}, [], "text"])
def test_a_transaction_without_meta_lacks_every_part(result: object) -> None:
    assert not_stored(result) == ("meta",)

"""The RPC client against a scripted node: answers, refusals, fail-over and bounds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from headrace.model.errors import BadInputError, TransientError
from headrace.runtime.backoff import Backoff
from headrace.runtime.breaker import Breaker
from headrace.runtime.clock import ManualClock
from headrace.solana.rpc import DataSlice, Rpc, RpcError, RpcNotYetError, RpcSettings
from headrace.testing.ledger import made_up_key
from headrace.testing.node import ScriptedNode

KEY, OWNER = made_up_key("key"), made_up_key("owner")


@asynccontextmanager
async def client(*nodes: ScriptedNode, breakers: list[Breaker] | None = None, **settings: Any) -> AsyncIterator[Rpc]:
    urls = [node.http_url for node in nodes]
    rpc = Rpc(urls, clock=ManualClock(), settings=RpcSettings(**settings), breakers=breakers)
    try:
        yield rpc
    finally:
        await rpc.aclose()


async def test_each_method_returns_the_typed_result() -> None:
    async with ScriptedNode(confirm_lag=2) as node, client(node) as rpc:
        first = node.emit_transaction([KEY], ["Program log: a"])
        for _ in range(5):
            node.advance_slot()
        second = node.emit_transaction([KEY], err="AccountNotFound", slot=1002)
        node.emit_account(KEY, OWNER, b"data", lamports=2**64 - 1)
        assert await rpc.get_slot() == 1005
        assert await rpc.get_slot("confirmed") == 1003
        assert await rpc.get_block_height() == 4
        assert await rpc.get_first_available_block() == 0
        assert await rpc.get_blocks(1001, 1010) == [1001, 1002, 1003]
        found = await rpc.get_signatures_for_address(KEY)
        assert [(info.signature, info.slot, info.err) for info in found] == [
            (second.signature, 1002, "AccountNotFound"),
            (first.signature, 1000, None),
        ]
        assert await rpc.get_signatures_for_address(KEY, before=second.signature, limit=1) == found[1:]
        assert await rpc.get_signatures_for_address(KEY, until=first.signature) == found[:1]
        assert (await rpc.get_transaction(first.signature))["meta"]["logMessages"] == ["Program log: a"]
        assert await rpc.get_transaction("1" * 64) is None
        account = await rpc.get_account_info(KEY)
        assert account is not None
        assert (account.slot, account.owner, account.data, account.lamports) == (1003, OWNER, b"data", 2**64 - 1)
        assert await rpc.get_multiple_accounts([OWNER, KEY]) == [None, account]
        assert await rpc.get_program_accounts(OWNER, filters=[{"dataSize": 4}], data_slice=DataSlice(0, 4)) == [account]
        assert await rpc.call("getSlot", [{"commitment": "processed"}]) == 1005


async def test_a_node_that_is_behind_may_be_asked_again() -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        with pytest.raises(RpcNotYetError) as raised:
            await rpc.get_signatures_for_address(KEY, min_context_slot=99_999)
        assert raised.value.code == -32016
        assert isinstance(raised.value, TransientError)


@pytest.mark.parametrize(
    ("code", "again"),
    [
        (-32004, True),
        (-32005, True),
        (-32014, True),
        (-32007, False),
        (-32009, False),
        (-32015, False),
        (-32602, False),
    ],
)
async def test_errors_say_by_class_whether_to_try_again(code: int, again: bool) -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.errors["getSlot"] = (code, "see https://user:pass@node.example/?api-key=hidden")
        with pytest.raises(RpcError) as raised:
            await rpc.get_slot()
        assert raised.value.code == code
        assert isinstance(raised.value, TransientError) == again
        assert "hidden" not in str(raised.value)
        assert "pass" not in str(raised.value)


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"{", b"[]", b'{"a":' * 10_000, b"\xff\xfe", b'{"id":"x","result":5}', b'{"result":5}']
)
async def test_an_answer_that_is_no_json_rpc_may_be_asked_again(body: bytes) -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.garbage = body
        with pytest.raises(TransientError):
            await rpc.get_slot()
        node.http_faults.garbage = None
        node.http_faults.wrong_id = True
        with pytest.raises(TransientError, match="another request"):
            await rpc.get_slot()


@pytest.mark.parametrize("result", ["7", -1, 1.5, None, [], {}])
async def test_a_result_of_the_wrong_type_is_bad_input(result: object) -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.results["getSlot"] = result
        with pytest.raises(BadInputError, match="rpc_wrong_type"):
            await rpc.get_slot()


async def test_wrong_counts_and_bad_data_are_bad_input() -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.results["getMultipleAccounts"] = {"context": {"slot": 1}, "value": []}
        with pytest.raises(BadInputError, match="rpc_wrong_count"):
            await rpc.get_account_info(KEY)
        account = {"lamports": 1, "owner": OWNER, "data": ["?", "base64"], "executable": False}
        node.http_faults.results["getMultipleAccounts"] = {"context": {"slot": 1}, "value": [account]}
        with pytest.raises(BadInputError, match="bad_base64"):
            await rpc.get_account_info(KEY)


async def test_a_long_answer_is_cut_off() -> None:
    async with ScriptedNode() as node, client(node, response_bytes_max=2000) as rpc:
        node.http_faults.garbage = b" " * 1_000_000
        with pytest.raises(BadInputError, match="rpc_too_large"):
            await rpc.get_slot()
        node.http_faults.garbage = None
        assert await rpc.get_slot() == 1000


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_busy_statuses_may_be_asked_again(status: int) -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.status = status
        with pytest.raises(TransientError, match=str(status)):
            await rpc.get_slot()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_other_statuses_are_refusals(status: int) -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.status = status
        with pytest.raises(RpcError) as raised:
            await rpc.get_slot()
        assert raised.value.code == status
        assert not isinstance(raised.value, TransientError)


async def test_retry_after_is_kept_to() -> None:
    clock = ManualClock()
    async with ScriptedNode() as node:
        rpc = Rpc([node.http_url], clock=clock)
        node.http_faults.status, node.http_faults.retry_after, node.http_faults.refused_calls = 429, "7", 1
        with pytest.raises(TransientError) as first:
            await rpc.get_slot()
        assert first.value.retry_after_s == 7
        await clock.advance(6)
        with pytest.raises(TransientError, match="every endpoint rests") as second:
            await rpc.get_slot()
        assert second.value.retry_after_s == 1
        await clock.advance(1)
        assert await rpc.get_slot() == 1000
        assert node.http.calls == ["getSlot", "getSlot"]
        await rpc.aclose()


async def test_the_next_endpoint_answers_when_one_fails() -> None:
    async with ScriptedNode(first_slot=5) as bad, ScriptedNode(first_slot=7) as good, client(bad, good) as rpc:
        assert await rpc.get_slot() == 5
        for fault in ({"hang_up": True}, {"status": 500}, {"status": 403}, {"garbage": b"?"}, {"wrong_id": True}):
            for name, value in fault.items():
                setattr(bad.http_faults, name, value)
            assert await rpc.get_slot() == 7
            bad.http.faults = type(bad.http_faults)()
        bad.http_faults.errors["getSlot"] = (-32005, "behind")
        assert await rpc.get_slot() == 7
        bad.http_faults.errors["getSlot"] = (-32015, "version")
        with pytest.raises(RpcError, match="-32015"):
            await rpc.get_slot()


async def test_a_breaker_rests_an_endpoint_that_keeps_failing() -> None:
    breaker = Breaker(failures_max=2, window_s=60, cooldown=Backoff(5, 5))
    async with ScriptedNode() as node, client(node, breakers=[breaker]) as rpc:
        node.http_faults.hang_up = True
        for _ in range(2):
            with pytest.raises(TransientError):
                await rpc.get_slot()
        calls = len(node.http.calls)
        with pytest.raises(TransientError, match="rests"):
            await rpc.get_slot()
        assert len(node.http.calls) == calls


async def test_a_node_that_hangs_is_given_up_and_one_that_is_away_is_transient() -> None:
    async with ScriptedNode() as node, client(node, timeout_s=0.05) as rpc:
        node.http_faults.hang = True
        with pytest.raises(TransientError, match=r"no answer in 0\.05 s"):
            await rpc.get_slot()
    async with client(node) as rpc:
        with pytest.raises(TransientError):
            await rpc.get_slot()


async def test_urls_never_show_their_secrets() -> None:
    rpc = Rpc(["http://user:secret@127.0.0.1:1/?api-key=secret"], clock=ManualClock())
    with pytest.raises(TransientError) as raised:
        await rpc.get_slot()
    assert "secret" not in str(raised.value)
    assert "127.0.0.1" in str(raised.value)
    await rpc.aclose()


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        Rpc([], clock=ManualClock())
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"timeout_s": 0}, RpcSettings)


async def test_too_many_accounts_are_refused_before_they_are_asked_for() -> None:
    rpc = Rpc(["http://127.0.0.1:1"], clock=ManualClock())
    with pytest.raises(ValueError, match="at most 100"):
        await rpc.get_multiple_accounts([KEY] * 101)
    await rpc.aclose()

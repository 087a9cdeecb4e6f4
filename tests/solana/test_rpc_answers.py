"""Answers that are not what was asked, and bodies that are larger than they look."""

import gzip
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any

import msgspec
import pytest
import zstandard

from headrace.model.errors import BadInputError, TransientError
from headrace.runtime.clock import ManualClock, SystemClock
from headrace.solana.rpc import Rpc, RpcError, RpcSettings
from headrace.solana.rpc_bodies import CONTAINERS_MAX, inflate
from headrace.testing.ledger import made_up_key, made_up_signature
from headrace.testing.node import ScriptedNode
from tests.hostile.bombs import deflated
from tests.hostile.meter import Meter

KEY, OWNER = made_up_key("key"), made_up_key("owner")


@asynccontextmanager
async def client(*nodes: ScriptedNode, **settings: Any) -> AsyncIterator[Rpc]:
    rpc = Rpc([node.http_url for node in nodes], clock=ManualClock(), settings=RpcSettings(**settings))
    try:
        yield rpc
    finally:
        await rpc.aclose()


def body(*pieces: bytes, coding: str = "", length: int | None = None, status: int = 200) -> Iterator[bytes]:
    head = f"HTTP/1.1 {status} x\r\ncontent-length: {sum(map(len, pieces)) if length is None else length}\r\n"
    head += f"content-encoding: {coding}\r\n" if coding else ""
    return iter([head.encode() + b"\r\n", *pieces])


def answer(request: dict[str, Any], result: object) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request["id"], "result": result})


GZIP_BOMB = deflated(600)
CHUNKED = b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n"

BOMBS: dict[str, tuple[str, Callable[[], Iterable[bytes]]]] = {
    "gzip": ("rpc_too_large", lambda: body(GZIP_BOMB, coding="gzip")),
    "gzip in gzip": ("rpc_bad_encoding", lambda: body(gzip.compress(GZIP_BOMB), coding="gzip, gzip")),
    "x-gzip": ("rpc_bad_encoding", lambda: body(GZIP_BOMB, coding="x-gzip")),
    "deflate": ("rpc_bad_encoding", lambda: body(deflated(50, -15), coding="deflate")),
    "br": ("rpc_bad_encoding", lambda: body(b"\x1b" * 1000, coding="br")),
    "zstd": ("rpc_bad_encoding", lambda: body(zstandard.compress(bytes(10**8)), coding="zstd")),
    "two gzip streams": ("rpc_bad_encoding", lambda: body(gzip.compress(b"{}") * 2, coding="gzip")),
    "half a gzip stream": ("rpc_bad_encoding", lambda: body(gzip.compress(b"{}")[:-4], coding="gzip")),
    "no gzip": ("rpc_bad_encoding", lambda: body(b'{"id":1,"result":1}', coding="gzip")),
    "plain": ("rpc_too_large", lambda: body(*repeat(b" " * 1_000_000, 200))),
    "chunked": ("rpc_too_large", lambda: [CHUNKED, *repeat(b"10000\r\n%b\r\n" % bytes(65536), 300)]),
    "a length that is declared only": ("rpc_too_large", lambda: body(b"{", length=10**15)),
    "many lists": ("rpc_too_complex", lambda: body(b'{"id":1,"result":[' + b"[]," * 600_000 + b"1]}")),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_bombs_are_refused_within_their_bound_of_memory_and_time(name: str) -> None:
    reason, pieces = BOMBS[name]
    async with ScriptedNode() as node, client(node, timeout_s=120.0) as rpc:  # making some of them takes a while
        node.http_faults.raw = lambda _: pieces()
        async with Meter() as meter:
            with pytest.raises(BadInputError, match=reason):
                await rpc.get_transaction(made_up_signature(1))
        assert meter.grown_bytes < 24 * 1024 * 1024


async def test_a_bomb_is_inflated_up_to_the_bound_of_its_call_and_no_further() -> None:
    for bytes_max in (0, 1, 100, 70_000, 2**21):
        with pytest.raises(BadInputError, match="rpc_too_large"):
            inflate(GZIP_BOMB, bytes_max)
    assert inflate(gzip.compress(b"x" * 1000), 1000) == b"x" * 1000


async def test_gzip_that_was_asked_for_is_read() -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.raw = lambda request: body(gzip.compress(answer(request, 7)), coding="gzip")
        assert await rpc.get_slot() == 7


async def test_the_bound_is_that_of_the_call() -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.raw = lambda request: body(answer(request, 7), b" " * 70_000)
        with pytest.raises(BadInputError, match="rpc_too_large"):
            await rpc.get_slot()
        with pytest.raises(BadInputError, match="rpc_too_large"):
            await rpc.get_blocks(1, 2)
        assert await rpc.call("anything") == 7


async def test_more_arrays_than_any_answer_has_are_refused_before_they_are_made() -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.results["anything"] = [[]] * (CONTAINERS_MAX - 2)
        assert len(await rpc.call("anything")) == CONTAINERS_MAX - 2
        node.http_faults.results["anything"] = [[]] * CONTAINERS_MAX
        with pytest.raises(BadInputError, match="rpc_too_complex"):
            await rpc.call("anything")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with ScriptedNode() as elsewhere, ScriptedNode() as node, client(node) as rpc:
        head = f"HTTP/1.1 {status} x\r\nlocation: {elsewhere.http_url}/\r\ncontent-length: 0\r\n\r\n".encode()
        node.http_faults.raw = lambda _: [head]
        with pytest.raises(RpcError, match=str(status)):
            await rpc.get_slot()
        assert elsewhere.http.calls == []


@pytest.mark.parametrize(
    "text", [b'{"id":1,"result":"\xff"}', b'{"id":"\xff","result":1}', b'{"id":1,"error":{"code":1,"message":"\xff"}}']
)
async def test_invalid_utf8_is_no_defect_of_ours(text: bytes) -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.raw = lambda _: body(text)
        with pytest.raises((BadInputError, TransientError)):
            await rpc.call("getSlot")


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        ('{"id":"%d","result":7}', 7),
        ('{"id":%d,"result":8,"result":7}', 7),
        ('{"id":%d,"result":7,"error":null}', 7),
        ('{"id":%d9,"result":7}', "another request"),
        ('{"id":%d9,"error":{"code":-32007,"message":"not ours"}}', "another request"),
        ('{"id":%d,"result":7,"error":{"code":-32007,"message":"x"}}', "-32007"),
        ('{"id":null,"error":{"code":-32700,"message":"x"}}', "-32700"),
        ('{"id":%d,"result":NaN}', "not a JSON-RPC answer"),
        ('[{"id":%d,"result":7}]', "not a JSON-RPC answer"),
        ('{"id":%d,"error":"busy"}', "not a JSON-RPC answer"),
    ],
)
async def test_envelopes_of_other_requests_or_shapes_are_refused(envelope: str, expected: int | str) -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.raw = lambda request: body(envelope.replace("%d", str(request["id"])).encode())
        if isinstance(expected, int):
            assert await rpc.get_slot() == expected
        else:
            with pytest.raises((TransientError, RpcError), match=expected):
                await rpc.get_slot()


def line(number: int, slot: int) -> dict[str, Any]:
    return {"signature": made_up_signature(number), "slot": slot, "err": None}


def account(owner: str = OWNER) -> dict[str, Any]:
    return {"lamports": 1, "owner": owner, "data": ["", "base64"], "executable": False}


def in_context(value: object, slot: int = 1000) -> dict[str, Any]:
    return {"context": {"slot": slot}, "value": value}


Ask = Callable[[Rpc], Any]
OTHER_ANSWERS: dict[str, tuple[str, object, Ask]] = {
    "blocks before the range": ("getBlocks", [9, 10], lambda rpc: rpc.get_blocks(10, 20)),
    "blocks after the range": ("getBlocks", [10, 21], lambda rpc: rpc.get_blocks(10, 20)),
    "blocks in disorder": ("getBlocks", [12, 11], lambda rpc: rpc.get_blocks(10, 20)),
    "a block twice": ("getBlocks", [11, 11], lambda rpc: rpc.get_blocks(10, 20)),
    "a slot beyond 63 bits": ("getSlot", 2**63, lambda rpc: rpc.get_slot()),
    "signatures oldest first": (
        "getSignaturesForAddress",
        [line(1, 5), line(2, 6)],
        lambda rpc: rpc.get_signatures_for_address(KEY),
    ),
    "a signature twice": (
        "getSignaturesForAddress",
        [line(1, 5), line(1, 5)],
        lambda rpc: rpc.get_signatures_for_address(KEY),
    ),
    "more than the limit": (
        "getSignaturesForAddress",
        [line(1, 5), line(2, 5)],
        lambda rpc: rpc.get_signatures_for_address(KEY, limit=1),
    ),
    "before itself": (
        "getSignaturesForAddress",
        [line(1, 5)],
        lambda rpc: rpc.get_signatures_for_address(KEY, before=made_up_signature(1)),
    ),
    "until itself": (
        "getSignaturesForAddress",
        [line(2, 5), line(1, 5)],
        lambda rpc: rpc.get_signatures_for_address(KEY, until=made_up_signature(1)),
    ),
    "a signature that is none": (
        "getSignaturesForAddress",
        [{"signature": "1" * 80, "slot": 5, "err": None}],
        lambda rpc: rpc.get_signatures_for_address(KEY),
    ),
    "too few accounts": ("getMultipleAccounts", in_context([]), lambda rpc: rpc.get_account_info(KEY)),
    "too many accounts": ("getMultipleAccounts", in_context([None] * 2), lambda rpc: rpc.get_account_info(KEY)),
    "an owner that is no key": (
        "getMultipleAccounts",
        in_context([account("pump")]),
        lambda rpc: rpc.get_account_info(KEY),
    ),
    "a state older than asked for": (
        "getMultipleAccounts",
        in_context([None], slot=1),
        lambda rpc: rpc.get_account_info(KEY, min_context_slot=2),
    ),
    "accounts of another program": (
        "getProgramAccounts",
        in_context([{"pubkey": KEY, "account": account(KEY)}]),
        lambda rpc: rpc.get_program_accounts(OWNER),
    ),
    "a program account without a key": (
        "getProgramAccounts",
        in_context([{"pubkey": "x", "account": account()}]),
        lambda rpc: rpc.get_program_accounts(OWNER),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_ANSWERS)
async def test_what_was_not_asked_is_refused_and_the_next_endpoint_answers(name: str) -> None:
    method, result, ask = OTHER_ANSWERS[name]
    async with ScriptedNode() as liar, ScriptedNode() as honest, client(liar) as one, client(liar, honest) as two:
        liar.http_faults.results[method] = result
        with pytest.raises((BadInputError, TransientError)):
            await ask(one)
        assert honest.http.calls == []
        await ask(two)
        assert honest.http.calls == [method]


async def test_another_block_is_refused_and_one_that_lacks_what_is_wanted_is_asked_of_another_endpoint() -> None:
    async with ScriptedNode() as other, ScriptedNode() as honest, client(other) as one, client(other, honest) as two:
        landed = honest.emit_transaction([KEY])
        slot, signature = landed.slot, landed.signature
        for _ in range(3):
            honest.advance_slot()
        other.http_faults.results["getBlock"] = {"parentSlot": slot, "signatures": [signature]}
        with pytest.raises(BadInputError, match="on top of slot"):
            await one.get_block_signatures(slot)
        assert await two.get_block_signatures(slot) == [{signature}]
        other.http_faults.results["getBlock"] = {"parentSlot": slot - 1, "signatures": ["a"]}
        assert await two.get_block_signatures(slot) == [{"a"}]
        assert await two.get_block_signatures(slot, [signature]) == [{"a"}, {signature}]
        other.http_faults.results["getBlock"] = None
        assert await one.get_block_signatures(slot, [signature]) == []
        assert await two.get_block_signatures(slot, [signature]) == [{signature}]


async def test_another_transaction_is_refused_in_every_encoding_and_version() -> None:
    async with ScriptedNode() as liar, ScriptedNode() as honest, client(liar, honest) as rpc:
        wanted, other = honest.emit_transaction([KEY]), liar.ledger.land([KEY], signature=made_up_signature(99))
        for _ in range(3):
            honest.advance_slot()
        in_json = {"signatures": [other.signature], "message": {}}
        for told in (other.result["transaction"], in_json, {"signatures": ["x"]}, ["", "base64"], "1" * 64, None, {}):
            liar.http_faults.results["getTransaction"] = {**other.result, "transaction": told}
            assert await rpc.get_transaction(wanted.signature) == wanted.result


async def test_an_answer_in_small_pieces_ends_with_the_time_for_the_call() -> None:
    async with ScriptedNode() as node:
        rpc = Rpc([node.http_url], clock=SystemClock(), settings=RpcSettings(timeout_s=0.2))
        node.http_faults.raw = lambda _: (b"HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n", *repeat(b" ", 900))
        node.http_faults.pause_s = 0.01
        with pytest.raises(TransientError, match="no answer in"):
            await rpc.get_slot()
        await rpc.aclose()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ('[{"id":%a,"result":1},{"id":%b,"result":2}]', [1, 2]),
        ('[{"id":%b,"result":2},{"id":%a,"result":1}]', [1, 2]),
        ('[{"id":"%a","result":1},{"id":"%b","result":2}]', [1, 2]),
        ('[{"id":%a,"result":1},{"id":%a,"result":9},{"id":%b,"result":2}]', [1, 2]),
        ('[{"id":%a,"result":1}]', [1, None]),
        ('[{"id":99,"result":1},{"id":%b,"result":2}]', [None, 2]),
        ("[]", [None, None]),
    ],
)
async def test_answers_of_a_batch_are_told_apart_by_id(shape: str, expected: list[object]) -> None:
    async with ScriptedNode() as node, client(node) as rpc:

        def told(batch: Any) -> Iterable[bytes]:
            first, second = (str(request["id"]) for request in batch)
            return body(shape.replace("%a", first).replace("%b", second).encode())

        node.http_faults.raw = told
        assert await rpc.get_transactions(0, [made_up_signature(1), made_up_signature(2)]) == expected


@pytest.mark.parametrize("text", [b"[" + b"{}," * 100_000 + b"{}]", b"[" + b" " * 5_000_000 + b"]"])
async def test_a_batch_has_the_bounds_of_its_calls(text: bytes) -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.raw = lambda _: body(text)
        with pytest.raises(BadInputError, match="too_"):
            await rpc.get_transactions(0, [made_up_signature(1), made_up_signature(2)])


async def test_invalid_utf8_in_a_batch_is_no_defect_of_ours() -> None:
    async with ScriptedNode() as node, client(node) as rpc:
        node.http_faults.raw = lambda _: body(b'[{"id":"\xff","result":1}]')
        with pytest.raises(TransientError):
            await rpc.get_transactions(0, [made_up_signature(1), made_up_signature(2)])

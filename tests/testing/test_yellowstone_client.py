"""A Python client as grpcio-tools generates it from the interface works against the scripted node."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from grpc_tools import protoc

from headrace.model.keys import b58decode
from headrace.sources.yellowstone import messages
from headrace.testing.ledger import made_up_key
from headrace.testing.yellowstone import ScriptedYellowstone

PROGRAM, ACCOUNT = made_up_key("program"), made_up_key("account")
TIMEOUT_S = 30.0
SERVICE = """
service Geyser {
  rpc Subscribe(stream SubscribeRequest) returns (stream SubscribeUpdate);
  rpc SubscribeReplayInfo(SubscribeReplayInfoRequest) returns (SubscribeReplayInfoResponse);
  rpc Ping(PingRequest) returns (PongResponse);
  rpc GetLatestBlockhash(GetLatestBlockhashRequest) returns (GetLatestBlockhashResponse);
  rpc GetBlockHeight(GetBlockHeightRequest) returns (GetBlockHeightResponse);
  rpc GetSlot(GetSlotRequest) returns (GetSlotResponse);
  rpc IsBlockhashValid(IsBlockhashValidRequest) returns (IsBlockhashValidResponse);
  rpc GetVersion(GetVersionRequest) returns (GetVersionResponse);
}
"""


class Client(NamedTuple):
    """The two generated modules."""

    pb: Any
    services: Any


@asynccontextmanager
async def running() -> AsyncIterator[tuple[ScriptedYellowstone, Any]]:
    """A node that wants a token, and a channel to it."""
    async with (
        asyncio.timeout(TIMEOUT_S),
        ScriptedYellowstone(token="secret") as node,
        grpc.aio.insecure_channel(f"127.0.0.1:{node.port}") as channel,
    ):
        yield node, channel


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client under the names of the public interface: package `geyser`, service `Geyser`."""
    own = (resources.files(messages) / "geyser.proto").read_text("utf-8")
    public = own.replace("package headrace.yellowstone;", "package geyser;") + SERVICE
    assert "package geyser;" in public
    (tmp_path / "public_geyser.proto").write_text(public)
    include = Path(protoc.__file__).parent / "_proto"
    out = [f"--{each}_out={tmp_path}" for each in ("python", "grpc_python")]
    assert protoc.main(["protoc", f"-I{tmp_path}", f"-I{include}", *out, "public_geyser.proto"]) == 0
    monkeypatch.syspath_prepend(str(tmp_path))
    return Client(importlib.import_module("public_geyser_pb2"), importlib.import_module("public_geyser_pb2_grpc"))


async def test_generated_client_subscribes_and_asks(client: Client) -> None:
    pb = client.pb
    async with running() as (node, channel):
        stub, metadata = client.services.GeyserStub(channel), (("x-token", "secret"),)
        request = pb.SubscribeRequest(
            accounts={"a": pb.SubscribeRequestFilterAccounts(owner=[PROGRAM])},
            transactions={"t": pb.SubscribeRequestFilterTransactions(account_include=[PROGRAM])},
            slots={"s": pb.SubscribeRequestFilterSlots()},
        )
        ended = asyncio.Event()

        async def requests() -> AsyncIterator[Any]:
            yield request
            yield pb.SubscribeRequest(ping=pb.SubscribeRequestPing(id=7))
            await ended.wait()

        stream = stub.Subscribe(requests(), metadata=metadata)
        found: dict[str, Any] = {}
        while "pong" not in found:
            update = await stream.read()
            found.setdefault(update.WhichOneof("update_oneof"), update)
        landed = node.emit_transaction([PROGRAM])
        node.emit_account(ACCOUNT, PROGRAM, b"data")
        node.advance_slot()
        while found.keys() < {"pong", "transaction", "account", "slot"}:
            update = await stream.read()
            found.setdefault(update.WhichOneof("update_oneof"), update)
        assert found["pong"].pong.id == 7
        assert found["transaction"].filters == ["t"]
        assert found["transaction"].transaction.transaction.signature == b58decode(landed.signature)
        assert found["account"].account.account.pubkey == b58decode(ACCOUNT)
        assert found["account"].account.account.data == b"data"
        assert found["slot"].slot.slot >= landed.slot
        ask = partial(_ask, stub, metadata)
        assert (await ask("GetSlot", pb.GetSlotRequest())).slot == node.ledger.tip("processed")
        assert (await ask("GetVersion", pb.GetVersionRequest())).version
        assert (await ask("Ping", pb.PingRequest(count=3))).count == 3
        blockhash = (await ask("GetLatestBlockhash", pb.GetLatestBlockhashRequest())).blockhash
        assert (await ask("IsBlockhashValid", pb.IsBlockhashValidRequest(blockhash=blockhash))).valid
        assert (await ask("GetBlockHeight", pb.GetBlockHeightRequest())).block_height > 0
        assert (await ask("SubscribeReplayInfo", pb.SubscribeReplayInfoRequest())).first_available > 0
        ended.set()
        stream.cancel()


async def test_generated_client_without_the_token_is_refused(client: Client) -> None:
    async with running() as (_, channel):
        stub = client.services.GeyserStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetSlot(client.pb.GetSlotRequest())
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def _ask(stub: Any, metadata: Any, method: str, request: Any) -> Any:
    return await getattr(stub, method)(request, metadata=metadata)

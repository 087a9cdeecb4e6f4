"""The scripted node and its ledger behave as a node does where the source relies on it."""

import msgspec
from websockets.asyncio.client import connect

from headrace.solana.transactions import transaction_from_rpc
from headrace.testing.ledger import Ledger, made_up_key, made_up_signature
from headrace.testing.node import ScriptedNode

KEY = made_up_key("key")


def test_a_made_up_transaction_reads_as_a_real_one() -> None:
    landed = Ledger().land([KEY, made_up_key("b")], ["Program log: x"], err="AccountNotFound")
    update = transaction_from_rpc(landed.result, source="s", feed="f", received_ns=0, commitment="confirmed")
    assert update.signature == landed.signature == made_up_signature(1)
    assert (update.slot, update.err, update.logs, update.version) == (
        1000,
        "AccountNotFound",
        ("Program log: x",),
        "legacy",
    )
    assert set(landed.mentions) < set(update.account_keys)
    assert update.instructions[0].program_id == KEY


def test_a_fork_changes_the_chain_and_its_commitments() -> None:
    ledger = Ledger(confirm_lag=1, root_lag=2)
    left = ledger.advance()
    on_left = ledger.land([KEY])
    right = ledger.advance(parent=1000)
    on_right = ledger.land([KEY])
    assert ledger.chain("processed") == [right, 1000]
    top = ledger.advance()
    assert (left, right, top) == (1001, 1002, 1003)
    assert ledger.chain("confirmed") == [right, 1000]
    assert ledger.tip("finalized") == 1000
    found = ledger.signatures_for(KEY, "confirmed", before=None, until=None, limit=10)
    assert found == [on_right]
    assert ledger.transaction(on_left.signature, "processed") is None


async def test_a_node_notifies_by_commitment_and_ends_a_signature_subscription() -> None:
    async with ScriptedNode(confirm_lag=1) as node, connect(node.ws_url) as socket:
        request = {"jsonrpc": "2.0", "id": 1, "method": "logsSubscribe"}
        params = [{"mentions": [KEY]}, {"commitment": "confirmed"}]
        await socket.send(msgspec.json.encode({**request, "params": params}), text=True)
        signature = made_up_signature(5)
        once = {"id": 2, "method": "signatureSubscribe", "params": [signature, {"commitment": "processed"}]}
        await socket.send(msgspec.json.encode(once), text=True)
        acks = [msgspec.json.decode(await socket.recv()) for _ in range(2)]
        assert [ack["id"] for ack in acks] == [1, 2]
        node.emit_transaction([KEY], signature=signature)
        seen = msgspec.json.decode(await socket.recv())
        assert seen["method"] == "signatureNotification"
        assert seen["params"]["subscription"] == acks[1]["result"]
        assert (node.subscribed("signature"), node.subscribed("logs")) == (0, 1)
        node.advance_slot()
        logs = msgspec.json.decode(await socket.recv())
        assert logs["params"]["result"]["context"]["slot"] == 1000
        assert logs["params"]["result"]["value"]["signature"] == signature

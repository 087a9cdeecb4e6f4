"""The source against a node that is well."""

from headrace.model.updates import AccountUpdate, LogsUpdate, SlotUpdate, TransactionUpdate
from headrace.testing.ledger import made_up_key, made_up_signature
from tests.sources.rpc_pubsub.rig import FEED, OTHER, PROGRAM, rig

ACCOUNT = made_up_key("account")


async def test_logs_arrive_as_they_are_and_no_gap_is_declared() -> None:
    async with rig() as rigged:
        emitted = []
        for number in range(50):
            landed = rigged.node.emit_transaction(
                [PROGRAM], [f"Program log: {number}"], err={"InstructionError": [0, "X"]}
            )
            emitted.append(landed)
            if number % 5 == 0:
                rigged.node.advance_slot()
        rigged.node.emit_transaction([OTHER])
        await rigged.until(lambda: len(rigged.signatures()) == 50)
        logs = [update for update in rigged.updates if isinstance(update, LogsUpdate)]
        assert [update.signature for update in logs] == [landed.signature for landed in emitted]
        assert [update.slot for update in logs] == [landed.slot for landed in emitted]
        assert logs[3].logs == ("Program log: 3",)
        assert logs[3].err == {"InstructionError": [0, "X"]}
        assert (logs[3].source, logs[3].feed, logs[3].commitment) == ("rpc-0", FEED, "processed")
        assert logs[3].received_ns > 1_700_000_000_000_000_000
        assert rigged.gaps == []


async def test_slots_become_processed_confirmed_finalized_and_dead() -> None:
    async with rig() as rigged:
        node = rigged.node
        trunk = node.advance_slot()
        orphan = node.advance_slot(parent=trunk)
        after = node.advance_slot(parent=trunk)

        def statuses(slot: int) -> set[str]:
            return {
                update.status for update in rigged.updates if isinstance(update, SlotUpdate) and update.slot == slot
            }

        await rigged.until(lambda: {"processed", "confirmed", "finalized"} <= statuses(after), flowing=True)
        assert statuses(orphan) == {"processed", "dead"}
        parents = {u.parent for u in rigged.updates if isinstance(u, SlotUpdate) and u.slot == after} - {None}
        assert parents == {trunk}


async def test_accounts_in_zstd_and_where_that_is_refused_in_base64() -> None:
    data = bytes(range(256)) * 20
    for refuse in (False, True):
        async with rig(subscriptions=(f"account:{ACCOUNT}", "program:pump"), start=False) as rigged:
            rigged.node.faults.refuse_zstd = refuse
            await rigged.covered()
            rigged.node.emit_account(ACCOUNT, PROGRAM, data, lamports=2**64 - 1)
            await rigged.until(lambda: sum(isinstance(update, AccountUpdate) for update in rigged.updates) == 2)
            found = {update.feed: update for update in rigged.updates if isinstance(update, AccountUpdate)}
            assert found.keys() == {f"account:{ACCOUNT}", f"program:{PROGRAM}"}
            for update in found.values():
                assert (update.pubkey, update.owner) == (ACCOUNT, PROGRAM)
                assert (update.data, update.lamports) == (data, 2**64 - 1)


async def test_a_signature_is_delivered_whole_once_and_then_forgotten() -> None:
    signature = made_up_signature(77)
    async with rig(endpoints=2, subscriptions=(f"signature:{signature}",)) as rigged:
        await rigged.until(lambda: rigged.node.subscribed("signature") == 2)
        rigged.node.emit_transaction([PROGRAM], ["Program log: hello"], signature=signature)
        await rigged.until(lambda: bool(rigged.signatures(f"signature:{signature}")), flowing=True)
        (update,) = [update for update in rigged.updates if isinstance(update, TransactionUpdate)]
        assert update.logs == ("Program log: hello",)
        assert [known.kind for known in rigged.source.wanted] == ["slots"]


async def test_a_signature_that_landed_before_is_found_in_the_ledger() -> None:
    signature = made_up_signature(78)
    async with rig(subscriptions=(f"signature:{signature}",), start=False) as rigged:
        rigged.node.emit_transaction([PROGRAM], signature=signature)
        for _ in range(5):
            rigged.node.advance_slot()
        await rigged.until(lambda: bool(rigged.signatures(f"signature:{signature}")))


async def test_a_signature_that_the_ledger_never_gives_is_declared_lost() -> None:
    signature = made_up_signature(79)
    async with rig(subscriptions=(f"signature:{signature}",)) as rigged:
        rigged.node.http_faults.lost.add(signature)
        await rigged.until(lambda: rigged.node.subscribed("signature") == 1)
        landed = rigged.node.emit_transaction([PROGRAM], signature=signature)
        await rigged.until(lambda: len(rigged.gaps) == 2, flowing=True)
        assert [(gap.state, gap.from_slot) for gap in rigged.gaps] == [
            ("open", landed.slot),
            ("unrecoverable", landed.slot),
        ]


async def test_subscriptions_change_without_reconnecting() -> None:
    async with rig() as rigged:
        rigged.source.update_subscriptions([f"logs:{OTHER}"])
        await rigged.until(lambda: rigged.node.subscribed("logs", PROGRAM) == 0)
        await rigged.covered()
        rigged.node.emit_transaction([PROGRAM])
        rigged.node.emit_transaction([OTHER])
        await rigged.until(lambda: bool(rigged.signatures(f"logs:{OTHER}")))
        rigged.source.update_subscriptions([FEED])
        rigged.source.update_subscriptions([f"logs:{OTHER}", FEED])  # dropped and wanted again within a tick
        await rigged.covered()
        rigged.node.emit_transaction([PROGRAM, OTHER])
        await rigged.until(lambda: len(rigged.signatures(f"logs:{OTHER}")) == 2 and bool(rigged.signatures()))
        assert rigged.signatures(FEED) == rigged.signatures(f"logs:{OTHER}")[1:]
        assert rigged.proxy.connections == 1
        assert rigged.gaps == []


async def test_stop_ends_the_source_as_stopped() -> None:
    async with rig() as rigged:
        rigged.source.stop()
        await rigged.until(lambda: rigged.ending is not None)
        assert rigged.ending == ("stopped", "")


async def test_confirmed_commitment_brings_what_is_confirmed() -> None:
    async with rig(commitment="confirmed") as rigged:
        landed = rigged.node.emit_transaction([PROGRAM])
        await rigged.until(lambda: bool(rigged.signatures()), flowing=True)
        update = next(update for update in rigged.updates if isinstance(update, LogsUpdate))
        assert (update.signature, update.commitment) == (landed.signature, "confirmed")
        assert rigged.node.ledger.tip("confirmed") >= landed.slot


async def test_a_lost_endpoint_is_on_the_health_board_and_counted() -> None:
    async with rig(endpoints=2) as rigged:
        state = rigged.health.components()["source:rpc"]
        assert state.ready
        assert state.detail == "2 of 2 endpoints"
        rigged.proxies[1].refuse = True
        rigged.proxies[1].cut()
        await rigged.until(lambda: "1 of 2" in rigged.health.components()["source:rpc"].detail, flowing=True)
        assert rigged.health.ready
        await rigged.until(lambda: rigged.count("source_messages_total", source="rpc-0") > 0)
        await rigged.until(lambda: rigged.count("source_reconnects_total", source="rpc-1", reason="refused") > 3)

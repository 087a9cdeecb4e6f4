"""The JSON text of messages that the pipeline makes from facts: trades, tokens, slots, gaps, promotes, retracts. Pure.

The shapes are those of docs/reference/topics.md. u64 are strings.
"""

from collections.abc import Sequence

from headrace.cores.bodies import around_state, json_text, named, path_text
from headrace.model.amounts import SOL_DECIMALS, decimal_string
from headrace.model.events import DecodedEvent
from headrace.model.facts import Gap, Origin, TokenCreated, Transferred
from headrace.model.keys import WSOL_MINT
from headrace.model.trades import Derived, Trade, token_id_of
from headrace.model.updates import Commitment, SlotStatus


def trade_opening(event: DecodedEvent, trade: Trade) -> bytes:
    """Return the data of a trade up to its fields."""
    in_sol = trade.quote_mint == WSOL_MINT
    sol = b'"%b"' % decimal_string(trade.quote_amount, SOL_DECIMALS).encode() if in_sol else b"null"
    return (
        b'{"type":"Trade",%b"mint":%b,"quote_mint":%b,"side":"%b","user":%b,"authority":%b,"base_amount":"%d",'
        b'"quote_amount":"%d","sol":%b,"pool":%b,"fields":'
    ) % (
        named(event),
        json_text(trade.mint),
        json_text(trade.quote_mint),
        trade.side.encode(),
        json_text(trade.user),
        json_text(trade.authority),
        trade.base_amount,
        trade.quote_amount,
        sol,
        json_text(trade.pool),
    )


def created_data(created: TokenCreated) -> bytes:
    return json_text(
        {
            "type": "TokenCreated",
            "token_id": token_id_of(created.mint),
            "mint": created.mint,
            "name": created.name,
            "symbol": created.symbol,
            "creator": created.creator,
        }
    )


def transfer_body(fact: Transferred, origin: Origin) -> bytes:
    """Return the whole body of a transfer. `chain.ix` is the path of its instruction; `via` is null."""
    it = fact.transfer
    data = {
        "type": "TokenTransfer",
        "kind": it.kind,
        "program_id": it.program_id,
        "mint": it.mint,
        "decimals": it.decimals,
        "source": it.source,
        "source_owner": it.source_owner,
        "destination": it.destination,
        "destination_owner": it.destination_owner,
        "amount": str(it.amount),
        "fee": None if it.fee is None else str(it.fee),
        "authority": it.authority,
    }
    chain = (
        b'{"slot":"%d","signature":%b,"ix":[%b],"commitment":"%b","tx_version":%b,"source":%b,"truncated":false,"via":null}'
    ) % (
        origin.slot,
        json_text(origin.signature),
        path_text(it.path)[1],
        origin.commitment.encode(),
        json_text(origin.version),
        json_text(origin.source),
    )
    return b'"event_id":%b,"data":%b,"chain":%b' % (json_text(fact.event_id), json_text(data), chain)


def derived_body(derived: Derived, event_id: str, commitment: Commitment) -> bytes:
    """Return the whole body; `chain` is that of the newest trade."""
    place = derived.place
    head, tail = around_state(event_id, place.slot, place.signature, commitment, place.source)
    return head + derived.data + tail


def slot_body(slot: int, status: SlotStatus, parent: int | None, source: str) -> bytes:
    data = {"type": "Slot", "slot": str(slot), "status": status, "parent": None if parent is None else str(parent)}
    commitment: Commitment = status if status in ("confirmed", "finalized") else "processed"
    head, tail = around_state(f"{slot}:slot:{status}", slot, None, commitment, source)
    return head + json_text(data) + tail


def promote_body(slot: int, commitment: Commitment) -> bytes:
    return b'"data":%b' % json_text({"slot": str(slot), "commitment": commitment})


def retract_body(event_ids: Sequence[str], reason: str) -> bytes:
    return b'"data":%b' % json_text({"event_ids": event_ids, "reason": reason})


def gap_body(gap: Gap) -> bytes:
    data = {
        "gap_id": gap.gap_id,
        "from_slot": str(gap.from_slot),
        "to_slot": str(gap.to_slot),
        "state": gap.state,
        "reason": gap.reason,
    }
    return b'"data":%b' % json_text(data)

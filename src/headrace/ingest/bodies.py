"""The JSON text of messages: what stands after the offset in a frame, each part encoded once. Pure.

An event's body is `"event_id":"…","data":{…},"chain":{…}`, that of promote, retract and gap `"data":{…}`. Shapes are
those of docs/reference/topics.md. u64 are strings.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import pybase64

from headrace.ingest.enrich import TokenCreated, Trade
from headrace.ingest.gaps import Gap
from headrace.model.amounts import SOL_DECIMALS, decimal_string
from headrace.model.events import DecodedAccount, DecodedEvent
from headrace.model.keys import WSOL_MINT
from headrace.model.updates import AccountUpdate, Commitment, LogsUpdate, SlotStatus, TransactionUpdate

_json: Final = msgspec.json.Encoder().encode
_names: Final[dict[tuple[str, str], bytes]] = {}  # bounded by the events that the IDLs have


class Body(NamedTuple):
    """A body and the id in it."""

    event_id: str
    text: bytes


class TransactionBodies:
    """Makes the bodies of one transaction; what they share is encoded once."""

    def __init__(self, update: LogsUpdate | TransactionUpdate, commitment: Commitment) -> None:
        self._id = f"{update.slot}:{update.signature}:"
        version = update.version if isinstance(update, TransactionUpdate) else None
        self._chain = b',"chain":{"slot":"%d","signature":%b,"ix":' % (update.slot, _json(update.signature))
        self._rest = b',"commitment":"%b","tx_version":%b,"source":%b,"truncated":' % (
            commitment.encode(),
            _json(version),
            _json(update.source),
        )

    def event(self, event: DecodedEvent, data: bytes) -> Body:
        """A body for one of the event's tellings; all of them have the event's id."""
        path = ".".join(map(str, event.path))
        event_id = f"{self._id}{path}:{event.ordinal}"
        ix = path.replace(".", ",").encode()
        return Body(
            event_id,
            b'"event_id":%b,"data":%b%b[%b]%b%b,"via":"%b"}'
            % (
                _json(event_id),
                data,
                self._chain,
                ix,
                self._rest,
                b"true" if event.truncated else b"false",
                event.via.encode(),
            ),
        )

    def whole(self, data: bytes, *, truncated: bool) -> Body:
        """The body for what concerns the transaction as a whole: no instruction, no `via`."""
        event_id = f"{self._id}tx:0"
        end = b'%b[]%b%b,"via":null}' % (self._chain, self._rest, b"true" if truncated else b"false")
        return Body(event_id, b'"event_id":%b,"data":%b%b' % (_json(event_id), data, end))


def _named(event: DecodedEvent) -> bytes:
    key = (event.program, event.name)
    text = _names.get(key)
    if text is None:
        text = _names[key] = b'"program":%b,"event":%b,' % (_json(event.program), _json(event.name))
    return text


def event_data(event: DecodedEvent, fields: bytes) -> bytes:
    return b'{"type":"Event",%b"fields":%b}' % (_named(event), fields)


def trade_data(event: DecodedEvent, trade: Trade, fields: bytes) -> bytes:
    mint, quote_mint, side, user, base_amount, quote_amount, pool = trade
    sol = b'"%b"' % decimal_string(quote_amount, SOL_DECIMALS).encode() if quote_mint == WSOL_MINT else b"null"
    return (
        b'{"type":"Trade",%b"mint":%b,"quote_mint":%b,"side":"%b","user":%b,"base_amount":"%d","quote_amount":"%d",'
        b'"sol":%b,"pool":%b,"fields":%b}'
        % (
            _named(event),
            _json(mint),
            _json(quote_mint),
            side.encode(),
            _json(user),
            base_amount,
            quote_amount,
            sol,
            _json(pool),
            fields,
        )
    )


def created_data(created: TokenCreated) -> bytes:
    return _json(
        {
            "type": "TokenCreated",
            "token_id": created.token_id,
            "mint": created.mint,
            "name": created.name,
            "symbol": created.symbol,
            "creator": created.creator,
        }
    )


def transaction_data(
    update: LogsUpdate | TransactionUpdate,
    events: Sequence[DecodedEvent],
    instructions: Sequence[dict[str, Any]],
    *,
    logs: bool,
) -> bytes:
    """`logs`: with the log lines, for a program without an IDL."""
    data: dict[str, Any] = {
        "type": "Transaction",
        "signature": update.signature,
        "err": update.err,
        "version": update.version if isinstance(update, TransactionUpdate) else None,
        "events": [{"program": e.program, "name": e.name, "via": e.via, "path": e.path} for e in events],
        "instructions": instructions,
    }
    if logs:
        data["logs"] = update.logs
    return _json(data)


def account_body(
    update: AccountUpdate,
    commitment: Commitment,
    version: int,
    program: str,
    account: DecodedAccount | None,
    fields: bytes,
) -> Body:
    """`version` counts the account's contents in this slot. `fields` are JSON, `null` where `account` is None."""
    event_id = f"{update.slot}:{update.pubkey}:account:{version}"
    raw = b"" if account is not None else b',"raw":"%b"' % pybase64.b64encode(update.data)
    return Body(
        event_id,
        b'"event_id":%b,"data":{"type":"Account","pubkey":%b,"owner":%b,"program":%b,"account":%b,"lamports":"%d",'
        b'"fields":%b%b},"chain":{"slot":"%d","signature":%b,"ix":[],"commitment":"%b","tx_version":null,"source":%b,'
        b'"truncated":false,"via":null}'
        % (
            _json(event_id),
            _json(update.pubkey),
            _json(update.owner),
            _json(program),
            _json(account and account.name),
            update.lamports,
            fields,
            raw,
            update.slot,
            _json(update.signature),
            commitment.encode(),
            _json(update.source),
        ),
    )


def slot_body(slot: int, status: SlotStatus, parent: int | None, source: str) -> bytes:
    data = {"type": "Slot", "slot": str(slot), "status": status, "parent": None if parent is None else str(parent)}
    commitment = status if status in ("confirmed", "finalized") else "processed"
    chain: dict[str, Any] = {
        "slot": str(slot),
        "signature": None,
        "ix": [],
        "commitment": commitment,
        "tx_version": None,
        "source": source,
        "truncated": False,
        "via": None,
    }
    return b'"event_id":"%d:slot:%b","data":%b,"chain":%b' % (slot, status.encode(), _json(data), _json(chain))


def promote_body(slot: int, commitment: Commitment) -> bytes:
    return b'"data":%b' % _json({"slot": str(slot), "commitment": commitment})


def retract_body(event_ids: Sequence[str], reason: str) -> bytes:
    return b'"data":%b' % _json({"event_ids": event_ids, "reason": reason})


def gap_body(gap: Gap) -> bytes:
    data = {
        "gap_id": gap.gap_id,
        "from_slot": str(gap.from_slot),
        "to_slot": str(gap.to_slot),
        "state": gap.state,
        "reason": gap.reason,
    }
    return b'"data":%b' % _json(data)

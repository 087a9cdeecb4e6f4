"""A scripted Solana node on loopback: HTTP JSON-RPC and WebSocket PubSub over a small ledger, with faults on demand."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Self

import msgspec
import pybase64
import zstandard
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from headrace.model.updates import Commitment, TxError
from headrace.runtime.channel import Channel, ChannelClosed, ChannelFull
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.testing.ledger import Account, Landed, Ledger
from headrace.testing.node_http import HttpFaults, HttpRpc

_UNSENT_MAX: Final = 100_000


@dataclass
class PubSubFaults:
    """Faults of the PubSub side, none by default. They may be changed at any time."""

    refuse: bool = False
    """Answer handshakes with `refuse_status`."""
    refuse_status: int = 503
    retry_after: str = ""
    """The `Retry-After` header of a refused handshake."""
    location: str = ""
    """The `Location` header of a refused handshake."""
    unanswered: set[str] = field(default_factory=set)
    """Methods that get no answer."""
    text_ids: str = ""
    """Form of subscription ids: this text, with a number in place of `{}`. If empty, ids are numbers."""
    same_id: bool = False
    """Give all subscriptions the same id."""
    never_ack: bool = False
    """Read requests and never answer."""
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Method → (code, message) of the error to answer with."""
    refuse_zstd: bool = False
    """Answer `base64+zstd` with the error for invalid parameters."""
    silent: bool = False
    """Send nothing more. The socket stays open, and pings are answered."""
    dropped: set[str] = field(default_factory=set)
    """Kinds (`logs`, `slot` …) of notifications that are not sent."""
    repeat: int = 1
    """Number of times that each notification is sent."""
    reorder: bool = False
    """Send each pair of notifications in reverse order."""
    wrong_ids: bool = False
    """Send notifications with unknown subscription ids."""
    shown: Callable[[dict[str, Any]], object] | None = None
    """Returns the value to send in place of the `transaction` of a `transactionNotification`."""


@dataclass
class _Subscribed:
    kind: str
    key: str
    commitment: Commitment
    encoding: str


class _Client:
    """One connection: its subscriptions, and the frames that wait to be sent."""

    def __init__(self) -> None:
        self.subscriptions: dict[int, _Subscribed] = {}
        self.unsent: Channel[str | bytes] = Channel(_UNSENT_MAX, "disconnect", name="scripted node")
        self.held: str | None = None

    def push(self, message: str | bytes) -> None:
        try:
            self.unsent.put_nowait(message)
        except (ChannelClosed, ChannelFull):
            pass  # the client has gone, or does not read


class ScriptedNode:
    """A node on loopback. Use as `async with ScriptedNode() as node`, then `node.ws_url` and `node.http_url`.

    `advance_slot` and `emit_…` change the ledger and notify the subscribers of this node and of its `mirrors`: nodes
    with the same ledger but faults of their own. `send_raw` sends any bytes. `faults` and `http_faults` switch faults
    on. `requests` lists the methods called over WebSocket, in order.
    """

    def __init__(
        self,
        *,
        first_slot: int = 1000,
        confirm_lag: int = 2,
        root_lag: int = 32,
        whole_transactions: bool = False,
        mirrors: "Sequence[ScriptedNode]" = (),
    ) -> None:
        self.whole_transactions = whole_transactions
        """Whether `transactionSubscribe` is accepted, as by Helius. Other nodes answer -32601."""
        self.ledger = Ledger(head=first_slot, confirm_lag=confirm_lag, root_lag=root_lag)
        self.faults = PubSubFaults()
        self.http = HttpRpc(self.ledger)
        self._mirrors = mirrors
        for mirror in mirrors:
            mirror.ledger = mirror.http.ledger = self.ledger
        self.requests: list[str] = []
        self._clients: set[_Client] = set()
        self._ids = itertools.count(24_040)
        self._changed = asyncio.Event()
        self._announced: dict[Commitment, int] = {"confirmed": first_slot - 1, "finalized": first_slot - 1}

    @property
    def http_faults(self) -> HttpFaults:
        return self.http.faults

    async def __aenter__(self) -> Self:
        await self.http.start()
        self._server: Server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._handshake, ping_interval=None, compression=None,
            close_timeout=0.2,
        )  # fmt: skip
        self.ws_port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        await self.http.stop()

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.ws_port}"

    @property
    def http_url(self) -> str:
        return self.http.url

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` is true. It is checked after each request and each start or end of a connection."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def subscribed(self, kind: str, key: str = "") -> int:
        """Return the number of subscriptions of a kind (`logs`, `transaction`, `program`, `account`, `slot` …)."""
        return sum(
            known.kind == kind and (not key or known.key == key)
            for client in self._clients
            for known in client.subscriptions.values()
        )

    def subscription_id(self, kind: str) -> int | str:
        """Return the id of the newest subscription of a kind, in the form that clients know."""
        known = [item for client in self._clients for item in client.subscriptions.items() if item[1].kind == kind]
        return self._shown(known[-1][0])

    # What happens on the chain.

    def advance_slot(self, *, parent: int | None = None, skip: int = 0) -> int:
        """Begin the next slot. Notify subscribers of it, and of everything that it confirms and finalizes."""
        slot = self.ledger.advance(parent=parent, skip=skip)
        info = {"slot": slot, "parent": self.ledger.parent(slot), "root": self.ledger.tip("finalized")}
        self._notify("slot", lambda known: info)
        for commitment, seen in list(self._announced.items()):
            for reached in reversed(self.ledger.chain(commitment)):
                if reached > seen:
                    self._announced[commitment] = reached
                    for landed in self.ledger.landed.get(reached, []):
                        self._notify_landed(landed, commitment)
        return slot

    def emit_transaction(
        self,
        mentions: Sequence[str],
        logs: Sequence[str] = (),
        *,
        err: TxError = None,
        signature: str | None = None,
        slot: int | None = None,
        result: dict[str, Any] | None = None,
    ) -> Landed:
        """Land a transaction in `slot` (default: the head). `result` is the result of `getTransaction`."""
        landed = self.ledger.land(mentions, logs, err=err, signature=signature, slot=slot, result=result)
        self._notify_landed(landed, "processed")
        return landed

    def emit_account(self, pubkey: str, owner: str, data: bytes, *, lamports: int = 1_000_000) -> None:
        """Write an account. Notify account and program subscribers at once, whatever their commitment."""
        account = self.ledger.accounts[pubkey] = Account(owner, data, lamports)
        slot = self.ledger.head
        self._notify("account", lambda known: _in_context(slot, _account(account, known.encoding)), key=pubkey)
        keyed = partial(_keyed, slot, pubkey, account)
        self._notify("program", keyed, key=owner)

    def send_raw(self, message: str | bytes) -> None:
        """Send `message` as one text or binary frame to every connection."""
        for client in self._clients:
            client.push(message)

    def drop_clients(self) -> None:
        """Close every connection with a close frame."""
        for client in self._clients:
            client.unsent.close()

    # Connections and requests.

    def _handshake(self, connection: ServerConnection, _request: Request) -> Response | None:
        if self.faults.refuse:
            response = connection.respond(HTTPStatus(self.faults.refuse_status), "refused\n")
            if self.faults.retry_after:
                response.headers["Retry-After"] = self.faults.retry_after
            if self.faults.location:
                response.headers["Location"] = self.faults.location
            return response
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        client = _Client()
        self._clients.add(client)
        self._changed.set()
        try:
            async with Supervisor(SystemClock()) as tasks:
                tasks.start("node", "read", partial(self._read, connection, client))
                tasks.start("node", "write", partial(self._write, connection, client))
        finally:
            self._clients.discard(client)
            self._changed.set()

    async def _read(self, connection: ServerConnection, client: _Client) -> None:
        try:
            async for message in connection:
                request = msgspec.json.decode(message)
                answer = self._answer(client, request)
                if not self.faults.never_ack and request["method"] not in self.faults.unanswered:
                    client.push(msgspec.json.encode({"jsonrpc": "2.0", **answer}).decode())
                self._changed.set()
        except ConnectionClosed:
            pass
        client.unsent.close()

    async def _write(self, connection: ServerConnection, client: _Client) -> None:
        try:
            while True:
                for message in await client.unsent.get_batch():
                    if not self.faults.silent:
                        await connection.send(message)
        except ChannelClosed:
            await connection.close()
        except ConnectionClosed:
            pass

    def _answer(self, client: _Client, request: dict[str, Any]) -> dict[str, Any]:
        method, params = str(request["method"]), request.get("params") or []
        self.requests.append(method)
        if method in self.faults.errors:
            code, message = self.faults.errors[method]
            return {"id": request["id"], "error": {"code": code, "message": message}}
        if method.endswith("Unsubscribe"):
            number = next((n for n in client.subscriptions if self._shown(n) == params[0]), None)
            return {"id": request["id"], "result": client.subscriptions.pop(number or 0, None) is not None}
        if method == "transactionSubscribe" and not self.whole_transactions:
            return {"id": request["id"], "error": {"code": -32601, "message": "Method not found"}}
        options: dict[str, Any] = params[1] if len(params) > 1 else {}
        key = params[0] if params else ""
        encoding = options.get("encoding", "base64")
        if encoding == "base64+zstd" and self.faults.refuse_zstd:
            return {"id": request["id"], "error": {"code": -32602, "message": "Invalid params: unknown encoding"}}
        subscribed = _Subscribed(
            method.removesuffix("Subscribe"),
            _mention(key) if isinstance(key, dict) else key,
            options.get("commitment", "finalized"),
            encoding,
        )
        subscription_id = 1 if self.faults.same_id else next(self._ids)
        client.subscriptions[subscription_id] = subscribed
        return {"id": request["id"], "result": self._shown(subscription_id)}

    def _shown(self, number: int) -> int | str:
        """Return a subscription's id in the form that clients know."""
        return self.faults.text_ids.format(number) if self.faults.text_ids else number

    def _notify_landed(self, landed: Landed, commitment: Commitment) -> None:
        value = {"signature": landed.signature, "err": landed.err, "logs": landed.logs}
        result = _in_context(landed.slot, value)
        for key in dict.fromkeys(landed.mentions):
            self._notify("logs", lambda known: result, key=key, commitment=commitment)
            self._notify("transaction", lambda known: self._whole(landed), key=key, commitment=commitment)
        done = _in_context(landed.slot, {"err": landed.err})
        self._notify("signature", lambda known: done, key=landed.signature, commitment=commitment, once=True)

    def _whole(self, landed: Landed) -> dict[str, object]:
        transaction = {name: landed.result.get(name) for name in ("transaction", "meta", "version")}
        shown = transaction if self.faults.shown is None else self.faults.shown(transaction)
        return {"signature": landed.signature, "slot": landed.slot, "transaction": shown, "transactionIndex": 7}

    def _notify(
        self,
        kind: str,
        result: Callable[[_Subscribed], object],
        *,
        key: str = "",
        commitment: Commitment | None = None,
        once: bool = False,
    ) -> None:
        for mirror in self._mirrors:
            mirror._notify(kind, result, key=key, commitment=commitment, once=once)
        if kind in self.faults.dropped:
            return
        for client in self._clients:
            for number, known in list(client.subscriptions.items()):
                if known.kind != kind or known.key != key or (commitment and known.commitment != commitment):
                    continue
                shown = number + 1_000_000 if self.faults.wrong_ids else self._shown(number)
                params = {"result": result(known), "subscription": shown}
                frame = {"jsonrpc": "2.0", "method": f"{kind}Notification", "params": params}
                self._send(client, msgspec.json.encode(frame).decode())
                if once:
                    del client.subscriptions[number]

    def _send(self, client: _Client, message: str) -> None:
        for _ in range(self.faults.repeat):
            if self.faults.reorder and client.held is None:
                client.held = message
                continue
            client.push(message)
            if client.held is not None:
                client.push(client.held)
                client.held = None


def _mention(wanted: dict[str, Any]) -> str:
    """Return the single key of a `logsSubscribe`, or of the list of a `transactionSubscribe`."""
    return str((wanted.get("mentions") or wanted["accountInclude"])[0])


def _in_context(slot: int, value: object) -> dict[str, object]:
    return {"context": {"slot": slot, "apiVersion": "4.0.0"}, "value": value}


def _keyed(slot: int, pubkey: str, account: Account, known: _Subscribed) -> dict[str, object]:
    return _in_context(slot, {"pubkey": pubkey, "account": _account(account, known.encoding)})


def _account(account: Account, encoding: str) -> dict[str, object]:
    data = account.data
    if encoding == "base64+zstd":  # streamed, so that the frame does not declare its size, as on real nodes
        packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
        data = packer.compress(data) + packer.flush()
    return {
        "lamports": account.lamports,
        "data": [pybase64.b64encode_as_string(data), encoding],
        "owner": account.owner,
        "executable": account.executable,
        "rentEpoch": 2**64 - 1,
        "space": len(account.data),
    }

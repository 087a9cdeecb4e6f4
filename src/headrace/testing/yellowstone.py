"""A scripted Yellowstone node on loopback: the service `geyser.Geyser` over a small ledger, with faults on demand."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self

import grpc

from headrace.model.keys import b58encode
from headrace.model.updates import AccountUpdate, AnyUpdate, Commitment, SlotUpdate, TransactionUpdate, TxError
from headrace.runtime.channel import Channel, ChannelClosed, ChannelFull
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.solana.transactions import transaction_from_rpc
from headrace.sources.yellowstone.messages import geyser
from headrace.testing.ledger import Account, Landed, Ledger
from headrace.testing.node_http import HttpFaults, HttpRpc
from headrace.testing.yellowstone_filters import names_of, sliced
from headrace.testing.yellowstone_messages import (
    account_message,
    block_meta_message,
    slot_message,
    status_message,
    transaction_message,
)

SERVICE: Final = "geyser.Geyser"
MESSAGE_BYTES_MAX: Final = 128 * 1024 * 1024
_LEVELS: Final[dict[int, Commitment]] = {0: "processed", 1: "confirmed", 2: "finalized"}


@dataclass
class YellowstoneFaults:
    """Faults of the node, none by default. They may be changed at any time."""

    refuse: tuple[grpc.StatusCode, str] | None = None
    """End every subscription with this status."""
    refuse_from_slot: tuple[grpc.StatusCode, str] | None = None
    """End every subscription that has a `from_slot` with this status."""
    replay_skips: int = 0
    """Number of slots left out at the start of a replay."""
    replay_leaves_out: set[int] = field(default_factory=set)
    """Slots left out of a replay."""
    silent: bool = False
    """Send nothing more. The connection stays open."""
    dropped: set[str] = field(default_factory=set)
    """Kinds of updates (`account`, `slot`, `block_meta` …) that are not sent."""
    repeat: int = 1
    """Number of times that each update is sent."""
    unread_max: int = 250_000
    """Maximum number of updates that may wait for a client.

    One more ends its subscription, with the status for a slow client.
    """


class _Client:
    """One subscription: its newest request, and the messages that wait to be sent."""

    def __init__(self, unread_max: int) -> None:
        self.request: Any = None
        self.unsent: Channel[bytes] = Channel(unread_max, "disconnect", name="scripted yellowstone")
        self.ending: tuple[grpc.StatusCode, str] | None = None

    def push(self, message: bytes) -> None:
        try:
            self.unsent.put_nowait(message)
        except ChannelFull:
            self.ending = grpc.StatusCode.INTERNAL, "lagged to receive geyser messages"
        except ChannelClosed:
            pass  # the client is gone

    def end(self, code: grpc.StatusCode, details: str) -> None:
        self.ending = self.ending or (code, details)
        self.unsent.close()


class ScriptedYellowstone:
    """A node on loopback. Use as `async with ScriptedYellowstone() as node`, then `node.url` and `node.http_url`.

    `advance_slot`, `emit_…` and `play` change the ledger and notify the subscribers of this node and of its `mirrors`:
    nodes with the same ledger but faults of their own. `send` sends any message, `send_raw` any bytes, `end` a status.
    `faults` and `http_faults` switch faults on. If `token` is given, clients must send it as `x-token`. `requests`
    lists all requests of clients in order; `pings_answered` counts answers.
    """

    def __init__(
        self,
        *,
        first_slot: int = 1000,
        confirm_lag: int = 2,
        root_lag: int = 32,
        replay_slots: int = 150,
        token: str = "",
        ledger: Ledger | None = None,
        compression: grpc.Compression = grpc.Compression.NoCompression,
        credentials: grpc.ServerCredentials | None = None,
        mirrors: "Sequence[ScriptedYellowstone]" = (),
    ) -> None:
        self._mirrors = mirrors
        self.ledger = ledger or Ledger(head=first_slot, confirm_lag=confirm_lag, root_lag=root_lag)
        self.faults = YellowstoneFaults()
        self.http = HttpRpc(self.ledger)
        self.requests: list[Any] = []
        self.pings_answered = 0
        self._token, self._compression, self._credentials = token, compression, credentials
        self._replay_slots = replay_slots
        self._clients: set[_Client] = set()
        self._history: dict[int, list[Any]] = {}
        """Slot → its messages in the order sent, including statuses."""
        self._versions: dict[int, int] = {}
        self._write_versions = itertools.count(1)
        self._announced: dict[Commitment, int] = {"confirmed": self.ledger.head - 1, "finalized": self.ledger.head - 1}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.http.start()
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        self._server = grpc.aio.server(compression=self._compression, options=options)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        if self._credentials is None:
            self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", self._credentials)
        await self._server.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for client in list(self._clients):
            client.end(grpc.StatusCode.UNAVAILABLE, "the node stops")
        await self._server.stop(0.2)
        await self.http.stop()

    @property
    def url(self) -> str:
        scheme = "http" if self._credentials is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return self.http.url

    @property
    def http_faults(self) -> HttpFaults:
        return self.http.faults

    @property
    def subscribers(self) -> int:
        """The number of connected clients that have sent a request."""
        return sum(client.request is not None for client in self._clients)

    @property
    def oldest_slot(self) -> int:
        """The oldest slot from which a replay can begin."""
        return max(min(self._history, default=self.ledger.head), self.ledger.head - self._replay_slots)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` is true. It is checked after each request and each end of a subscription."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # What happens on the chain.

    def advance_slot(self, *, parent: int | None = None, skip: int = 0) -> int:
        """Finish the head's block and begin the next slot; return it. Send the slots that it confirms and finalizes."""
        self.finish_block()
        slot = self.ledger.advance(parent=parent, skip=skip)
        self.send(status_message(slot, "first_shred", self.ledger.parent(slot)))
        self.send(status_message(slot, "created_bank", self.ledger.parent(slot)))
        for commitment, seen in list(self._announced.items()):
            for reached in reversed(self.ledger.chain(commitment)):
                if reached > seen:
                    self._announced[commitment] = reached
                    self._send_late(reached, commitment)
                    self.send(status_message(reached, commitment, self.ledger.parent(reached)))
        return slot

    def finish_block(self) -> None:
        """Send the messages that complete the head's block."""
        slot = self.ledger.head
        landed = len(self.ledger.landed.get(slot, ()))
        parent = self.ledger.parent(slot)
        self.send(status_message(slot, "processed", parent))
        self.send(block_meta_message(slot, self.blockhash(slot), parent, landed))

    def kill_slot(self, slot: int) -> None:
        """Send the status `dead` of a slot."""
        self.send(status_message(slot, "dead", self.ledger.parent(slot)))

    def create_bank_again(self) -> None:
        """Begin the head's slot again as another version. Everything sent for the previous version is void."""
        slot = self.ledger.head
        self._versions[slot] = self._versions.get(slot, 0) + 1
        self.ledger.landed.pop(slot, None)
        self._history[slot] = []
        self.send(status_message(slot, "created_bank", self.ledger.parent(slot)))

    def rewrite_slot(self, slot: int) -> None:
        """Replace a past block by a block with another hash and without accounts.

        Only a replay shows the new block.
        """
        self._versions[slot] = self._versions.get(slot, 0) + 1
        kept = [each for each in self._history.get(slot, ()) if each.WhichOneof("update_oneof") != "account"]
        for each in kept:
            if each.WhichOneof("update_oneof") == "block_meta":
                each.block_meta.blockhash = self.blockhash(slot)
        self._history[slot] = kept

    def blockhash(self, slot: int) -> str:
        """Return the block hash of the slot's current version."""
        return b58encode(hashlib.sha256(b"%d %d" % (slot, self._versions.get(slot, 0))).digest())

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
        update = transaction_from_rpc(landed.result, source="", feed="", received_ns=0)
        self.send(transaction_message(update))
        return landed

    def emit_account(
        self, pubkey: str, owner: str, data: bytes, *, lamports: int = 1_000_000, signature: str | None = None
    ) -> AccountUpdate:
        """Write an account in the head's slot."""
        self.ledger.accounts[pubkey] = Account(owner, data, lamports)
        update = AccountUpdate(
            source="", feed="", received_ns=0, slot=self.ledger.head, pubkey=pubkey, owner=owner, lamports=lamports,
            data=data, write_version=next(self._write_versions), signature=signature,
        )  # fmt: skip
        self.send(account_message(update))
        return update

    def play(self, updates: Iterable[AnyUpdate]) -> None:
        """Send the transactions, accounts and slots of a recording. A block ends where the next slot begins."""
        writers: dict[type, Callable[[Any], Any]] = {
            TransactionUpdate: transaction_message,
            AccountUpdate: account_message,
            SlotUpdate: slot_message,
        }
        for update in updates:
            if (write := writers.get(type(update))) is not None:
                self.send(write(update))

    # Connections and requests.

    def send(self, message: Any) -> None:
        """Send a `SubscribeUpdate` to every client whose filters it passes, and keep it for replays."""
        for mirror in self._mirrors:
            mirror.send(message)
        slot = _slot_of(message)
        self._history.setdefault(slot, []).append(message)
        for old in [old for old in self._history if old < self.ledger.head - self._replay_slots]:
            del self._history[old]
        for client in self._clients:
            if client.request is not None and self._is_due(message, slot, client.request):
                self._push(client, message)

    def send_raw(self, message: bytes) -> None:
        """Send any bytes as one message to every client."""
        for client in self._clients:
            client.push(message)

    def ping(self) -> None:
        """Send a ping to every client."""
        ping = geyser.SubscribeUpdate()
        ping.ping.SetInParent()
        self.send_raw(ping.SerializeToString())

    def end(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = "the node stops") -> None:
        """End every subscription with a status."""
        for client in self._clients:
            client.end(code, details)

    def lag(self) -> None:
        """End every subscription with the status that a node sends to a client that is too slow."""
        self.end(grpc.StatusCode.INTERNAL, "lagged to receive geyser messages")

    def _is_due(self, message: Any, slot: int, request: Any) -> bool:
        """Return whether to send a message now, given the request's commitment."""
        commitment = _LEVELS.get(request.commitment, "processed")
        return message.WhichOneof("update_oneof") == "slot" or commitment == "processed" or (
            slot in self.ledger.chain(commitment)
        )  # fmt: skip

    def _send_late(self, slot: int, commitment: Commitment) -> None:
        """Send the messages of a slot that reached `commitment` to clients that wait for this commitment."""
        for client in self._clients:
            if client.request is not None and _LEVELS.get(client.request.commitment) == commitment:
                for message in self._history.get(slot, ()):
                    if message.WhichOneof("update_oneof") != "slot":
                        self._push(client, message)

    def _push(self, client: _Client, message: Any) -> None:
        names = names_of(message, client.request)
        if not names or message.WhichOneof("update_oneof") in self.faults.dropped:
            return
        copy = sliced(message, client.request.accounts_data_slice)
        copy.filters.extend(names)
        copy.created_at.GetCurrentTime()
        raw = copy.SerializeToString()
        for _ in range(self.faults.repeat):
            client.push(raw)

    def _handlers(self) -> dict[str, Any]:
        unary: dict[str, tuple[Any, Callable[[Any], Any]]] = {
            "GetVersion": (geyser.GetVersionRequest, self._get_version),
            "GetSlot": (geyser.GetSlotRequest, self._get_slot),
            "GetBlockHeight": (geyser.GetBlockHeightRequest, self._get_block_height),
            "GetLatestBlockhash": (geyser.GetLatestBlockhashRequest, self._get_latest_blockhash),
            "IsBlockhashValid": (geyser.IsBlockhashValidRequest, self._is_blockhash_valid),
            "Ping": (geyser.PingRequest, lambda request: geyser.PongResponse(count=request.count)),
            "SubscribeReplayInfo": (geyser.SubscribeReplayInfoRequest, self._replay_info),
        }
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(
                partial(self._answer, answer), kind.FromString, lambda message: message.SerializeToString()
            )
            for name, (kind, answer) in unary.items()
        }
        handlers["Subscribe"] = grpc.stream_stream_rpc_method_handler(self._subscribe, None, None)
        return handlers

    async def _answer(self, answer: Callable[[Any], Any], request: Any, context: Any) -> Any:
        await self._admit(context)
        return answer(request)

    async def _admit(self, context: Any) -> None:
        if self._token and dict(context.invocation_metadata()).get("x-token") != self._token:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "No valid auth token")

    async def _subscribe(self, requests: AsyncIterator[bytes], context: Any) -> None:
        await self._admit(context)
        if self.faults.refuse is not None:
            await context.abort(*self.faults.refuse)
        await context.send_initial_metadata(())  # clients wait for the metadata before they send their request
        client = _Client(self.faults.unread_max)
        self._clients.add(client)
        try:
            async with Supervisor(SystemClock()) as tasks:
                tasks.start("yellowstone", "read", partial(self._read, requests, client))
                await self._write(context, client)
                tasks.cancel()
        finally:
            self._clients.discard(client)
            self._changed.set()
        if client.ending is not None:
            await context.abort(*client.ending)

    async def _write(self, context: Any, client: _Client) -> None:
        while True:
            try:
                batch = await client.unsent.get_batch()
            except ChannelClosed:
                return
            for message in batch:
                if not self.faults.silent:
                    await context.write(message)

    async def _read(self, requests: AsyncIterator[bytes], client: _Client) -> None:
        async for raw in requests:
            request = geyser.SubscribeRequest.FromString(raw)
            self.requests.append(request)
            if request.HasField("ping"):
                self.pings_answered += 1
                pong = geyser.SubscribeUpdate()
                pong.pong.id = request.ping.id
                client.push(pong.SerializeToString())
            else:
                self._take(client, request)
            self._changed.set()
        client.unsent.close()

    def _take(self, client: _Client, request: Any) -> None:
        first = client.request is None
        client.request = request
        if not first or not request.HasField("from_slot"):
            return
        if self.faults.refuse_from_slot is not None:
            client.end(*self.faults.refuse_from_slot)
            return
        if request.from_slot < self.oldest_slot:
            details = f"from_slot {request.from_slot} is not available, last available: {self.oldest_slot}"
            client.end(grpc.StatusCode.OUT_OF_RANGE, details)
            return
        for slot in sorted(self._history):
            if slot < request.from_slot + self.faults.replay_skips or slot in self.faults.replay_leaves_out:
                continue
            for message in self._history[slot]:
                if self._is_due(message, slot, request):
                    self._push(client, message)

    # Unary methods.

    def _get_version(self, request: Any) -> Any:
        return geyser.GetVersionResponse(version='{"package":"headrace scripted node"}')

    def _get_slot(self, request: Any) -> Any:
        return geyser.GetSlotResponse(slot=self.ledger.tip(_LEVELS[request.commitment]))

    def _get_block_height(self, request: Any) -> Any:
        return geyser.GetBlockHeightResponse(block_height=len(self.ledger.chain(_LEVELS[request.commitment])))

    def _get_latest_blockhash(self, request: Any) -> Any:
        slot = self.ledger.tip(_LEVELS[request.commitment])
        return geyser.GetLatestBlockhashResponse(
            slot=slot, blockhash=self.blockhash(slot), last_valid_block_height=slot + 150
        )

    def _is_blockhash_valid(self, request: Any) -> Any:
        chain = self.ledger.chain(_LEVELS[request.commitment])[:150]
        valid = request.blockhash in map(self.blockhash, chain)
        return geyser.IsBlockhashValidResponse(slot=self.ledger.head, valid=valid)

    def _replay_info(self, request: Any) -> Any:
        return geyser.SubscribeReplayInfoResponse(first_available=self.oldest_slot)


def _slot_of(message: Any) -> int:
    update: Any = getattr(message, message.WhichOneof("update_oneof"))
    slot: int = update.slot
    return slot

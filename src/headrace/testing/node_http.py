"""The HTTP JSON-RPC side of a scripted node."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import pybase64

from headrace.model.updates import Commitment
from headrace.testing.ledger import Account, Ledger

_BODY_MAX: Final = 1_000_000


@dataclass
class HttpFaults:
    """Faults of the HTTP side, none by default. They may be changed at any time."""

    status: int = 200
    """Answer every call with this status and no JSON."""
    retry_after: str = ""
    """The `Retry-After` header of answers with `status`."""
    refused_calls: int = 0
    """Number of calls that are answered with `status`; 0: all calls."""
    garbage: bytes | None = None
    """Answer 200 with these bytes."""
    hang: bool = False
    """Read the call and never answer."""
    hang_up: bool = False
    """Close the connection instead of answering."""
    delay_s: float = 0.0
    """Wait before each answer."""
    wrong_id: bool = False
    """Answer with another id."""
    calls_left: int | None = None
    """Number of calls to answer; each call in a batch counts. Later calls get 429 until this is set again."""
    no_batches: bool = False
    """Answer a batch with one error, like nodes that don't support batches."""
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Method → JSON-RPC error."""
    results: dict[str, Any] = field(default_factory=dict)
    """Method → result, in place of the ledger's."""
    transactions: dict[str, Any] = field(default_factory=dict)
    """Signature → `getTransaction` result, in place of the ledger's."""
    statuses: dict[str, Any] = field(default_factory=dict)
    """Signature → its element of `getSignatureStatuses`, in place of the ledger's."""
    poison: str = ""
    """Signature that makes `getSignatureStatuses` fail."""
    nulls: int = 0
    """Number of times that each transaction is "not found" before it is found."""
    lost: set[str] = field(default_factory=set)
    """Signatures that are listed but never found."""
    raw: Callable[[dict[str, Any]], Iterable[bytes]] | None = None
    """Returns the pieces of the answer to a request, status line included.

    The connection is closed after the last piece.
    """
    pause_s: float = 0.0
    """Wait between the pieces of `raw`."""
    first_page: list[Any] | None = None
    """Answer to a listing that starts at the newest transaction, in place of the ledger's."""
    memo: str | None = None
    """The memo of every transaction in a listing."""
    unblocked: set[int] = field(default_factory=set)
    """Slots whose block is refused."""
    unlisted: set[str] = field(default_factory=set)
    """Addresses whose listing is refused."""


class RpcProblem(Exception):  # noqa: N818  (becomes an answer)
    """A JSON-RPC error with which to answer."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


class HttpRpc:
    """Answers `getSlot`, `getBlocks`, `getTransaction`, `getSignaturesForAddress`, … from a ledger.

    `requests` lists the calls in order, `calls` only their methods, and `batches` the number of calls in each batch.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.faults = ledger, HttpFaults()
        self.requests: list[dict[str, Any]] = []
        self.batches: list[int] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._nulls: dict[str, int] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def calls(self) -> list[str]:
        return [request["method"] for request in self.requests]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._stopping = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._stopping.set()
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._idle.wait()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._idle.clear()
        try:
            while (body := await _request(reader)) is not None:
                if self.faults.raw is not None:
                    await self._answer_raw(writer, body, self.faults.raw)
                    break
                answer = await self._answer(body)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # the client closed the connection, or did not send HTTP
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            if not self._writers:
                self._idle.set()

    async def _answer_raw(
        self, writer: asyncio.StreamWriter, body: bytes, raw: Callable[[dict[str, Any]], Iterable[bytes]]
    ) -> None:
        request = msgspec.json.decode(body)
        self.requests.append(request)
        for piece in raw(request):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(self.faults.pause_s)

    async def _answer(self, body: bytes) -> bytes | None:
        """Return the complete HTTP answer; None closes the connection."""
        faults = self.faults
        asked = msgspec.json.decode(body)
        requests = asked if isinstance(asked, list) else [asked]
        self.requests += requests
        self.batches += [len(asked)] if isinstance(asked, list) else []
        if faults.hang:
            await self._stopping.wait()
        if faults.delay_s:
            await asyncio.sleep(faults.delay_s)
        if faults.hang_up or faults.hang:
            return None
        if faults.status != 200:
            answer = _http(faults.status, b"no", retry_after=faults.retry_after)
            if faults.refused_calls:
                faults.refused_calls -= 1
                faults.status = faults.status if faults.refused_calls else 200
            return answer
        if faults.garbage is not None:
            return _http(200, faults.garbage)
        if faults.calls_left is not None:
            if faults.calls_left < len(requests):
                return _http(429, b"no", retry_after=faults.retry_after)
            faults.calls_left -= len(requests)
        if isinstance(asked, list) and faults.no_batches:
            refusal = {"code": -32600, "message": "batches are not taken"}
            return _http(200, msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": refusal}))
        answers = [self._answered(request) for request in requests]
        return _http(200, msgspec.json.encode(answers if isinstance(asked, list) else answers[0]))

    def _answered(self, request: dict[str, Any]) -> dict[str, object]:
        faults = self.faults
        shown_id = request["id"] + 1 if faults.wrong_id else request["id"]
        try:
            outcome: dict[str, object] = {"result": self._result(request["method"], request.get("params") or [])}
        except RpcProblem as problem:
            outcome = {"error": {"code": problem.code, "message": problem.message}}
        return {"jsonrpc": "2.0", "id": shown_id, **outcome}

    def _result(self, method: str, params: list[Any]) -> object:
        if method in self.faults.errors:
            raise RpcProblem(*self.faults.errors[method])
        if method in self.faults.results:
            return self.faults.results[method]
        options = next((each for each in params if isinstance(each, dict)), {})
        commitment: Commitment = options.get("commitment", "finalized")
        tip = self.ledger.tip(commitment)
        if options.get("minContextSlot", 0) > tip:
            raise RpcProblem(-32016, "Minimum context slot has not been reached")
        if method == "getSlot":
            return tip
        if method == "getBlockHeight":
            return len(self.ledger.chain(commitment))
        if method == "getFirstAvailableBlock":
            return self.ledger.first_available
        if method == "getBlocks":
            chain = self.ledger.chain(commitment)
            return sorted(slot for slot in chain if params[0] <= slot <= params[1])
        if method == "getBlock":
            return self._block(params[0], commitment)
        if method == "getTransaction":
            return self._transaction(params[0], commitment)
        if method == "getSignatureStatuses":
            if self.faults.poison in params[0]:
                raise RpcProblem(-32602, "Invalid param")
            return {"context": {"slot": self.ledger.head}, "value": [self._status(each) for each in params[0]]}
        if method == "getSignaturesForAddress":
            if params[0] in self.faults.unlisted:
                raise RpcProblem(-32600, "this address is not served")
            if self.faults.first_page is not None and "before" not in options:
                return self.faults.first_page
            return self._signatures(params[0], commitment, options)
        if method == "getAccountInfo":
            account = self.ledger.accounts.get(params[0])
            return {"context": {"slot": tip}, "value": account and _account(account)}
        if method == "getMultipleAccounts":
            found = [self.ledger.accounts.get(key) for key in params[0]]
            return {"context": {"slot": tip}, "value": [account and _account(account) for account in found]}
        if method == "getProgramAccounts":
            owned = [(key, found) for key, found in self.ledger.accounts.items() if found.owner == params[0]]
            return {
                "context": {"slot": tip},
                "value": [{"pubkey": key, "account": _account(found)} for key, found in owned],
            }
        raise RpcProblem(-32601, "Method not found")

    def _transaction(self, signature: str, commitment: Commitment) -> Any:
        if signature in self.faults.transactions:
            return self.faults.transactions[signature]
        landed = self.ledger.transaction(signature, commitment)
        asked = self._nulls[signature] = self._nulls.get(signature, 0) + 1
        if landed is None or signature in self.faults.lost or asked <= self.faults.nulls:
            return None
        return landed.result

    def _block(self, slot: int, commitment: Commitment) -> Any:
        """Return the block with only its signatures."""
        if slot in self.faults.unblocked:
            raise RpcProblem(-32007, f"Slot {slot} was skipped, or missing due to ledger jump to recent snapshot")
        if slot not in self.ledger.chain(commitment):
            raise RpcProblem(-32004, f"Block not available for slot {slot}")
        signatures = [landed.signature for landed in self.ledger.landed.get(slot, [])]
        return {
            "blockTime": None,
            "blockHeight": None,
            "parentSlot": self.ledger.parent(slot),
            "signatures": signatures,
        }

    def _status(self, signature: str) -> Any:
        if signature in self.faults.statuses:
            return self.faults.statuses[signature]
        landed = self.ledger.transaction(signature, "processed")
        if landed is None:
            return None
        levels: tuple[Commitment, ...] = ("finalized", "confirmed")
        level = next((each for each in levels if landed.slot in self.ledger.chain(each)), "processed")
        confirmations = None if level == "finalized" else 1
        return {"slot": landed.slot, "err": landed.err, "confirmations": confirmations, "confirmationStatus": level}

    def _signatures(self, address: str, commitment: Commitment, options: dict[str, Any]) -> list[dict[str, Any]]:
        found = self.ledger.signatures_for(
            address,
            commitment,
            before=options.get("before"),
            until=options.get("until"),
            limit=options.get("limit", 1000),
        )
        memo = self.faults.memo
        return [
            {"signature": landed.signature, "slot": landed.slot, "err": landed.err, "memo": memo, "blockTime": None}
            for landed in found
        ]


async def _request(reader: asyncio.StreamReader) -> bytes | None:
    """Return the body of the next POST; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return await reader.readexactly(min(int(value), _BODY_MAX))
    return b""


def _http(status: int, body: bytes, *, retry_after: str = "") -> bytes:
    head = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    if retry_after:
        head += f"retry-after: {retry_after}\r\n"
    return head.encode() + b"\r\n" + body


def _account(account: Account) -> dict[str, object]:
    return {
        "lamports": account.lamports,
        "data": [pybase64.b64encode_as_string(account.data), "base64"],
        "owner": account.owner,
        "executable": account.executable,
        "rentEpoch": 0,
        "space": len(account.data),
    }

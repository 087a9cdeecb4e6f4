"""Requests and subscriptions of one connection: requested, acknowledged, refused, dropped. Pure.

Sources: the Solana WebSocket documentation; for `transactionSubscribe`, that of Helius.
"""

import itertools
from collections.abc import Container, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from headrace.model.errors import BadInputError
from headrace.model.updates import Commitment
from headrace.sources.subscriptions import ChainSubscription, Kind, fetched_at

Encoding: TypeAlias = Literal["base64+zstd", "base64"]
ServerId: TypeAlias = int | str
"""A node's id of a subscription: a number, or text that is not a number."""

INVALID_PARAMS: Final = -32602
FORMER_MAX: Final = 4_096
_SERVER_ID_MAX: Final = 128
_METHODS: Final[dict[Kind, str]] = {
    "slots": "slot",
    "logs": "logs",
    "transactions": "logs",
    "program": "program",
    "account": "account",
    "signature": "signature",
}
_WHOLE_METHOD: Final = "transaction"
"""Method of nodes that send whole transactions; other nodes only name transactions, with their logs."""


def request_of(
    subscription: ChainSubscription,
    request_id: int,
    commitment: Commitment,
    encoding: Encoding,
    *,
    whole: bool = False,
) -> bytes:
    """Encode the JSON-RPC request for a subscription.

    With `whole`, it asks for whole transactions instead of their logs.
    """
    kind, key = subscription.kind, subscription.key
    params: list[object] = []
    if kind == "transactions" and whole:
        return _encode(request_id, f"{_WHOLE_METHOD}Subscribe", _whole(key, commitment))
    if kind == "transactions":
        params = [{"mentions": [key]}, {"commitment": fetched_at(commitment)}]
    elif kind == "logs":
        params = [{"mentions": [key]}, {"commitment": commitment}]
    elif kind == "signature":
        params = [key, {"commitment": commitment}]
    elif kind != "slots":
        params = [key, {"encoding": encoding, "commitment": commitment}]
        if subscription.filters:
            params[1] = {"encoding": encoding, "commitment": commitment, "filters": _filters(subscription.filters)}
    return _encode(request_id, f"{_METHODS[kind]}Subscribe", params)


def server_id_of(value: object) -> ServerId | None:
    """Return a node's id of a subscription. A number in text becomes that number. None for any other value."""
    if isinstance(value, str) and 0 < len(value) <= _SERVER_ID_MAX:
        return int(value) if value.isdecimal() and value.isascii() and len(value) <= 20 else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class _Entry:
    """State of one subscription on this connection: idle until `retry_at`, requested at `asked_at`, or active."""

    __slots__ = ("asked_at", "encoding", "refusals", "request_id", "retry_at", "server_id", "whole")

    def __init__(self) -> None:
        self.encoding: Encoding = "base64"
        self.request_id: int | None = None
        self.server_id: ServerId | None = None
        self.asked_at = self.retry_at = 0.0
        self.refusals = 0
        self.whole = False


class Registry:
    """Subscriptions of one connection. Each new connection needs a new registry, because nodes keep no subscriptions.

    With `whole`, `transactions:` subscriptions are first requested as whole transactions. If the node refuses or does
    not answer, logs are requested instead, and nothing is requested as whole again. `active` maps the node's ids to
    subscriptions. `refused` maps subscriptions to the reason.
    """

    def __init__(
        self,
        wanted: Sequence[ChainSubscription],
        commitment: Commitment,
        encoding: Encoding,
        *,
        retry_s: float = 30.0,
        whole: bool = False,
    ) -> None:
        self.commitment, self.encoding, self.whole = commitment, encoding, whole
        self._retry_s = retry_s
        self._ids = itertools.count(1)
        self._entries = {subscription: _Entry() for subscription in wanted}
        self._asked: dict[int, ChainSubscription] = {}
        self._unwanted: dict[int, tuple[ChainSubscription, bool]] = {}
        self._unsubscriptions: list[bytes] = []
        self.active: dict[ServerId, ChainSubscription] = {}
        self._former: dict[ServerId, None] = {}
        self.refused: dict[ChainSubscription, str] = {}

    @property
    def complete(self) -> bool:
        """Return whether the node has acknowledged or refused every subscription, and acknowledged at least one."""
        return len(self.active) + len(self.refused) >= len(self._entries) and bool(self.active)

    def commitment_of(self, subscription: ChainSubscription) -> Commitment:
        """Return the commitment of a subscription's notifications."""
        entry = self._entries.get(subscription)
        by_logs = subscription.kind == "transactions" and entry is not None and not entry.whole
        return fetched_at(self.commitment) if by_logs else self.commitment

    @property
    def whole_unanswered(self) -> bool:
        """Return whether a request for whole transactions has no answer yet."""
        return any(self._entries[asked].whole for asked in self._asked.values())

    def want(self, wanted: Sequence[ChainSubscription]) -> None:
        """Replace the wanted subscriptions. `due` then returns the requests to subscribe and unsubscribe."""
        for subscription in [known for known in self._entries if known not in wanted]:
            self.forget(subscription)
        for subscription in wanted:
            self._entries.setdefault(subscription, _Entry())

    def forget(self, subscription: ChainSubscription, *, unsubscribe: bool = True) -> None:
        """Drop a subscription.

        `unsubscribe` is False if the node has already dropped it: a signature that reached its commitment.
        """
        entry = self._entries.pop(subscription, None)
        self.refused.pop(subscription, None)
        if entry is None:
            return
        if entry.server_id is not None:
            del self.active[entry.server_id]
            self._remember_former(entry.server_id)
            if unsubscribe:
                self._unsubscribe(subscription, entry.server_id, whole=entry.whole)
        elif entry.request_id is not None:
            self._unwanted[entry.request_id] = self._asked.pop(entry.request_id), entry.whole

    def renew(self, subscription: ChainSubscription) -> None:
        """Request a subscription again.

        The node may have dropped it with a notification that could not be read.
        """
        entry = self._entries.get(subscription)
        if entry is not None and entry.server_id is not None:
            self.forget(subscription)
            self._entries[subscription] = _Entry()

    def is_lost(self, server_id: ServerId, kinds: Container[Kind]) -> bool:
        """Return whether a notification of some `kinds` with an unknown id means that an active subscription lost it.

        It does not if the id was active earlier, or if a request of such a kind has no answer yet.
        """
        unanswered = (*self._asked.values(), *(subscription for subscription, _ in self._unwanted.values()))
        return server_id not in self._former and not any(asked.kind in kinds for asked in unanswered)

    def due(self, now: float) -> list[bytes]:
        """Return the requests to send now."""
        requests, self._unsubscriptions = self._unsubscriptions, []
        for subscription, entry in self._entries.items():
            if entry.request_id is None and entry.server_id is None and now >= entry.retry_at:
                entry.request_id, entry.asked_at, entry.encoding = next(self._ids), now, self.encoding
                entry.whole = self.whole and subscription.kind == "transactions"
                self._asked[entry.request_id] = subscription
                requests.append(
                    request_of(subscription, entry.request_id, self.commitment, self.encoding, whole=entry.whole)
                )
        return requests

    def acknowledge(self, request_id: int, server_id: ServerId) -> ChainSubscription | None:
        """Record that a request was accepted.

        Return the subscription that is now active, None for an unknown or old request id.
        Raises BadInputError `id_taken` if another subscription has the `server_id`, because notifications of the two
        could not be distinguished.
        """
        unwanted = self._unwanted.pop(request_id, None)
        if unwanted is not None and server_id not in self.active:  # nodes give the same id to two equal requests
            self._remember_former(server_id)
            self._unsubscribe(unwanted[0], server_id, whole=unwanted[1])
        subscription = self._asked.pop(request_id, None)
        if subscription is None:
            return None
        if server_id in self.active:
            raise BadInputError("id_taken", f"{self.active[server_id].feed} and {subscription.feed}")
        entry = self._entries[subscription]
        entry.request_id, entry.server_id, entry.refusals = None, server_id, 0
        self.active[server_id] = subscription
        self.refused.pop(subscription, None)
        return subscription

    def refuse(self, request_id: int, code: int, message: str, now: float) -> ChainSubscription | None:
        """Record a refusal. Return the refused subscription, None if it is requested at once in another form.

        A refused subscription is requested again after a pause that doubles each time. Other subscriptions are not
        affected. If the parameters of an account subscription are invalid, the encoding may be the reason, so plain
        base64 is tried at once. Whole transactions that are refused (-32601 if the node lacks the method, other codes
        if the plan does) are requested as logs.
        """
        self._unwanted.pop(request_id, None)
        subscription = self._asked.pop(request_id, None)
        if subscription is None:
            return None
        entry = self._entries[subscription]
        entry.request_id = None
        encoded = subscription.kind in ("program", "account")
        if code == INVALID_PARAMS and encoded and entry.encoding != "base64":
            self.encoding = "base64"
            return None
        if entry.whole:
            self.whole = False
            return None
        self._put_off(subscription, f"{code} {message}", now)
        return subscription

    def unanswered(self, now: float, ack_timeout_s: float) -> list[ChainSubscription]:
        """Return the subscriptions whose requests are older than `ack_timeout_s`.

        They count as refused from now on, even if the answer comes later.
        """
        late = {
            request_id: subscription
            for request_id, subscription in self._asked.items()
            if now - self._entries[subscription].asked_at > ack_timeout_s
        }
        for request_id, subscription in late.items():
            entry = self._entries[subscription]
            self._unwanted[request_id] = self._asked.pop(request_id), entry.whole
            if entry.whole:
                self.whole, entry.request_id = False, None
            else:
                self._put_off(subscription, f"no answer in {ack_timeout_s:g} s", now)
        return [subscription for subscription in late.values() if subscription in self.refused]

    def _put_off(self, subscription: ChainSubscription, reason: str, now: float) -> None:
        entry = self._entries[subscription]
        entry.request_id = None
        entry.retry_at = now + self._retry_s * 2 ** min(entry.refusals, 5)
        entry.refusals += 1
        self.refused[subscription] = reason

    def _remember_former(self, server_id: ServerId) -> None:
        self._former[server_id] = None
        if len(self._former) > FORMER_MAX:
            del self._former[next(iter(self._former))]

    def _unsubscribe(self, subscription: ChainSubscription, server_id: ServerId, *, whole: bool = False) -> None:
        method = f"{_WHOLE_METHOD if whole else _METHODS[subscription.kind]}Unsubscribe"
        self._unsubscriptions.append(_encode(next(self._ids), method, [server_id]))


def _encode(request_id: int, method: str, params: list[object]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def _whole(key: str, commitment: Commitment) -> list[object]:
    """Return the parameters of `transactionSubscribe`. Without `failed`, both outcomes are sent, as with logs."""
    wanted = {"vote": False, "accountInclude": [key]}
    options = {
        "commitment": commitment,
        "encoding": "base64",
        "transactionDetails": "full",
        "showRewards": False,
        "maxSupportedTransactionVersion": 1,
    }
    return [wanted, options]


def _filters(filters: tuple[tuple[str, str], ...]) -> list[object]:
    sent: list[object] = []
    for name, value in filters:
        if name == "dataSize":
            sent.append({"dataSize": int(value)})
        else:
            offset, _, wanted = value.partition(":")
            sent.append({"memcmp": {"offset": int(offset), "bytes": wanted}})
    return sent

"""What to subscribe to, and the registry of one connection: asked, acknowledged, refused, dropped. Pure."""

import itertools
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, cast
from urllib.parse import parse_qsl

import msgspec

from headrace.model.errors import BadInputError, ConfigError
from headrace.model.keys import b58decode, is_key, is_signature
from headrace.model.updates import Commitment

Kind: TypeAlias = Literal["slots", "logs", "transactions", "program", "account", "signature"]
Encoding: TypeAlias = Literal["base64+zstd", "base64"]
ServerId: TypeAlias = int | str
"""What a node calls a subscription: a number, or text that is none."""
Resolve: TypeAlias = Callable[[str], str]
"""A program's name (`pump`) to its id; raises KeyError for a name that it does not know."""

LISTED: Final = ("logs", "transactions")
"""Kinds of which the ledger lists what landed."""
FILTERS_MAX: Final = 4
FORMER_MAX: Final = 4_096
_SERVER_ID_MAX: Final = 128
INVALID_PARAMS: Final = -32602
_METHODS: Final[dict[Kind, str]] = {
    "slots": "slot",
    "logs": "logs",
    "transactions": "logs",
    "program": "program",
    "account": "account",
    "signature": "signature",
}
_WHOLE_METHOD: Final = "transaction"
"""Of the nodes that send whole transactions (`transactionSubscribe`); the others name them in their logs."""
_EXPECTED: Final = "logs:KEY, transactions:KEY, program:PROGRAM, account:PUBKEY or signature:SIGNATURE"


class Subscription(NamedTuple):
    """One thing to be told of. `filters` (programs only): `("dataSize", "165")`, `("memcmp", "<offset>:<base58>")`."""

    kind: Kind
    key: str = ""
    filters: tuple[tuple[str, str], ...] = ()

    @property
    def feed(self) -> str:
        """The name that its updates carry, different for different filters: `program:<id>?dataSize=165`."""
        name = f"{self.kind}:{self.key}" if self.key else self.kind
        return f"{name}?{'&'.join(f'{what}={value}' for what, value in self.filters)}" if self.filters else name

    def request(self, request_id: int, commitment: Commitment, encoding: Encoding, *, whole: bool = False) -> bytes:
        """Encode the JSON-RPC request that asks for it; `whole` asks for whole transactions, not for their logs."""
        params: list[object] = []
        if self.kind == "transactions" and whole:
            return _encode(request_id, f"{_WHOLE_METHOD}Subscribe", _whole(self.key, commitment))
        if self.kind == "transactions":
            params = [{"mentions": [self.key]}, {"commitment": fetched_at(commitment)}]
        elif self.kind == "logs":
            params = [{"mentions": [self.key]}, {"commitment": commitment}]
        elif self.kind == "signature":
            params = [self.key, {"commitment": commitment}]
        elif self.kind != "slots":
            params = [self.key, {"encoding": encoding, "commitment": commitment}]
            if self.filters:
                params[1] = {"encoding": encoding, "commitment": commitment, "filters": _filters(self.filters)}
        return _encode(request_id, f"{_METHODS[self.kind]}Subscribe", params)


SLOTS: Final = Subscription("slots")


def fetched_at(commitment: Commitment) -> Commitment:
    """Return the commitment at which the ledger gives transactions: `getTransaction` knows none that is processed."""
    return "finalized" if commitment == "finalized" else "confirmed"


def parse(text: str, resolve: Resolve) -> Subscription:
    """`logs:pump`, `transactions:pump`, `program:<id>?dataSize=165&memcmp=32:<base58>`, `account:<pubkey>`,
    `signature:<signature>`. After `logs:` and `transactions:` any key may stand: a program, a token, a wallet.

    Raises ConfigError that names what is wrong.
    """
    kind, _, rest = text.strip().partition(":")
    key, _, query = rest.partition("?")
    if (
        kind not in ("logs", "transactions", "program", "account", "signature")
        or not key
        or (query and kind != "program")
    ):
        raise ConfigError("SUBSCRIPTIONS", text, _EXPECTED)
    if kind == "signature":
        if not is_signature(key):
            raise ConfigError("SUBSCRIPTIONS", text, "a base58 signature after signature:")
    elif not is_key(key):
        key = _resolved(kind, key, text, resolve)
    return Subscription(cast(Kind, kind), key, _parse_filters(query, text))


def parse_all(texts: Iterable[str], resolve: Resolve) -> tuple[Subscription, ...]:
    """All of them, without repeats, the slot subscription first: every other bound is measured in slots."""
    return tuple(dict.fromkeys((SLOTS, *(parse(text, resolve) for text in texts))))


def server_id_of(value: object) -> ServerId | None:
    """Return a node's name of a subscription; a number written as text is that number, anything else None."""
    if isinstance(value, str) and 0 < len(value) <= _SERVER_ID_MAX:
        return int(value) if value.isdecimal() and value.isascii() and len(value) <= 20 else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class _Entry:
    """Where one subscription stands on this connection: idle until `retry_at`, asked since `asked_at`, or active."""

    __slots__ = ("asked_at", "encoding", "refusals", "request_id", "retry_at", "server_id", "whole")

    def __init__(self) -> None:
        self.encoding: Encoding = "base64"
        self.request_id: int | None = None
        self.server_id: ServerId | None = None
        self.asked_at = self.retry_at = 0.0
        self.refusals = 0
        self.whole = False


class Registry:
    """The subscriptions of one connection. A new connection starts a new registry: nodes forget everything.

    With `whole`, `transactions:` is first asked for as whole transactions; a node that refuses, or does not answer, is
    asked for the logs instead, and asked for nothing else as whole.
    """

    def __init__(
        self,
        wanted: Sequence[Subscription],
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
        self._asked: dict[int, Subscription] = {}
        self._unwanted: dict[int, tuple[Subscription, bool]] = {}
        self._goodbyes: list[bytes] = []
        self.active: dict[ServerId, Subscription] = {}
        self._former: dict[ServerId, None] = {}
        self.refused: dict[Subscription, str] = {}

    @property
    def complete(self) -> bool:
        """Whether the node has acknowledged all that is wanted and not refused."""
        return len(self.active) + len(self.refused) >= len(self._entries) and bool(self.active)

    def commitment_of(self, subscription: Subscription) -> Commitment:
        """Return the commitment at which the node brings it."""
        entry = self._entries.get(subscription)
        by_logs = subscription.kind == "transactions" and entry is not None and not entry.whole
        return fetched_at(self.commitment) if by_logs else self.commitment

    @property
    def whole_unanswered(self) -> bool:
        """Whether a node was asked for whole transactions and has neither agreed nor refused."""
        return any(self._entries[asked].whole for asked in self._asked.values())

    def want(self, wanted: Sequence[Subscription]) -> None:
        """Replace what is wanted: `due` then asks for what is new and says goodbye to what is not wanted any more."""
        for subscription in [known for known in self._entries if known not in wanted]:
            self.forget(subscription)
        for subscription in wanted:
            self._entries.setdefault(subscription, _Entry())

    def forget(self, subscription: Subscription, *, tell: bool = True) -> None:
        """Want it no more; `tell` is False where the node has dropped it of itself (a signature that was seen)."""
        entry = self._entries.pop(subscription, None)
        self.refused.pop(subscription, None)
        if entry is None:
            return
        if entry.server_id is not None:
            del self.active[entry.server_id]
            self._note_former(entry.server_id)
            if tell:
                self._say_goodbye(subscription, entry.server_id, whole=entry.whole)
        elif entry.request_id is not None:
            self._unwanted[entry.request_id] = self._asked.pop(entry.request_id), entry.whole

    def renew(self, subscription: Subscription) -> None:
        """Ask for it anew: the node may have dropped it with a notification that could not be read."""
        entry = self._entries.get(subscription)
        if entry is not None and entry.server_id is not None:
            self.forget(subscription)
            self._entries[subscription] = _Entry()

    def is_lost(self, server_id: ServerId, kinds: Container[Kind]) -> bool:
        """Return whether a notification of one of `kinds` under an id that is not active is one that an active
        subscription now lacks. It is not if the id was active once, or if the node has yet to answer what was asked."""
        unanswered = (*self._asked.values(), *(subscription for subscription, _ in self._unwanted.values()))
        return server_id not in self._former and not any(asked.kind in kinds for asked in unanswered)

    def due(self, now: float) -> list[bytes]:
        """The requests to send now."""
        requests, self._goodbyes = self._goodbyes, []
        for subscription, entry in self._entries.items():
            if entry.request_id is None and entry.server_id is None and now >= entry.retry_at:
                entry.request_id, entry.asked_at, entry.encoding = next(self._ids), now, self.encoding
                entry.whole = self.whole and subscription.kind == "transactions"
                self._asked[entry.request_id] = subscription
                requests.append(
                    subscription.request(entry.request_id, self.commitment, self.encoding, whole=entry.whole)
                )
        return requests

    def acknowledge(self, request_id: int, server_id: ServerId) -> Subscription | None:
        """The node accepted; returns what is active now. None for an id that was not asked under, or not any more.

        Raises BadInputError `id_taken` for a `server_id` that another subscription has: neither could be told apart.
        """
        unwanted = self._unwanted.pop(request_id, None)
        if unwanted is not None and server_id not in self.active:  # nodes give what is asked for twice the same id
            self._note_former(server_id)
            self._say_goodbye(unwanted[0], server_id, whole=unwanted[1])
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

    def refuse(self, request_id: int, code: int, message: str, now: float) -> Subscription | None:
        """The node said no: it is asked again after a pause that doubles, the other subscriptions live on.

        Parameters that an account subscription's encoding may have spoilt are tried with plain base64 at once, whole
        transactions (-32601 where a node has none, other codes where the plan has none) by their logs.
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

    def unanswered(self, now: float, ack_timeout_s: float) -> list[Subscription]:
        """Those that were asked for longer ago than `ack_timeout_s`. They count as refused from now on, even if the
        answer comes after all."""
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

    def _put_off(self, subscription: Subscription, reason: str, now: float) -> None:
        entry = self._entries[subscription]
        entry.request_id = None
        entry.retry_at = now + self._retry_s * 2 ** min(entry.refusals, 5)
        entry.refusals += 1
        self.refused[subscription] = reason

    def _note_former(self, server_id: ServerId) -> None:
        self._former[server_id] = None
        if len(self._former) > FORMER_MAX:
            del self._former[next(iter(self._former))]

    def _say_goodbye(self, subscription: Subscription, server_id: ServerId, *, whole: bool = False) -> None:
        method = f"{_WHOLE_METHOD if whole else _METHODS[subscription.kind]}Unsubscribe"
        self._goodbyes.append(_encode(next(self._ids), method, [server_id]))


def _encode(request_id: int, method: str, params: list[object]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def _whole(key: str, commitment: Commitment) -> list[object]:
    """The parameters of Helius' `transactionSubscribe`; without `failed` both outcomes come, as with logs."""
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


def _parse_filters(query: str, text: str) -> tuple[tuple[str, str], ...]:
    if not query:
        return ()
    pairs = parse_qsl(query, keep_blank_values=True)
    for name, value in pairs:
        offset, colon, wanted = value.partition(":")
        size = name == "dataSize" and value.isdecimal()
        compare = name == "memcmp" and offset.isdecimal() and bool(colon) and _base58_length(wanted) > 0
        if not (size or compare):
            raise ConfigError("SUBSCRIPTIONS", text, "filters dataSize=BYTES and memcmp=OFFSET:BASE58")
    if not 0 < len(pairs) <= FILTERS_MAX:
        raise ConfigError("SUBSCRIPTIONS", text, f"1 to {FILTERS_MAX} filters")
    return tuple(pairs)


def _resolved(kind: str, name: str, text: str, resolve: Resolve) -> str:
    if kind == "account":
        raise ConfigError("SUBSCRIPTIONS", text, "a public key after account:")
    try:
        key = resolve(name)
    except KeyError:
        key = ""
    if not is_key(key):
        raise ConfigError("SUBSCRIPTIONS", text, f"a program id or the name of a known program after {kind}:")
    return key


def _base58_length(text: str) -> int:
    try:
        return len(b58decode(text))
    except ValueError:
        return -1

"""Subscriptions of a source on the chain: kinds, feeds, and the texts of the setting `subscriptions`. Pure."""

from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple, TypeAlias, cast
from urllib.parse import parse_qsl

from headrace.model.errors import ConfigError
from headrace.model.keys import b58decode, is_key, is_signature
from headrace.model.updates import Commitment

Kind: TypeAlias = Literal["slots", "logs", "transactions", "program", "account", "signature", "filter"]
"""`filter` is a filter from a source's own settings; the setting `subscriptions` can't contain it."""
Resolve: TypeAlias = Callable[[str], str]
"""Returns a program's id by its name (`pump`); raises KeyError for an unknown name."""

LISTED: Final = ("logs", "transactions")
"""Kinds whose transactions the ledger lists (`getSignaturesForAddress`), so that a loss can be found and filled."""
FILTERS_MAX: Final = 4
_EXPECTED: Final = "logs:KEY, transactions:KEY, program:PROGRAM, account:PUBKEY or signature:SIGNATURE"


class ChainSubscription(NamedTuple):
    """One subscription of a source.

    `filters` (kind `program` only): `("dataSize", "165")`, `("memcmp", "<offset>:<base58>")`.
    """

    kind: Kind
    key: str = ""
    filters: tuple[tuple[str, str], ...] = ()

    @property
    def feed(self) -> str:
        """The `feed` of its updates. It differs for different filters: `program:<id>?dataSize=165`."""
        name = f"{self.kind}:{self.key}" if self.key else self.kind
        return f"{name}?{'&'.join(f'{what}={value}' for what, value in self.filters)}" if self.filters else name


SLOTS: Final = ChainSubscription("slots")


def fetched_at(commitment: Commitment) -> Commitment:
    """Return the commitment at which the ledger returns transactions. `getTransaction` knows no processed ones."""
    return "finalized" if commitment == "finalized" else "confirmed"


def parse(text: str, resolve: Resolve) -> ChainSubscription:
    """Parse the text of a subscription.

    The forms are `logs:pump`, `transactions:pump`, `program:<id>?dataSize=165&memcmp=32:<base58>`, `account:<pubkey>`
    and `signature:<signature>`. After `logs:` and `transactions:`, any key may follow: a program, a token, a wallet.
    Raises ConfigError naming the wrong part.
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
    return ChainSubscription(cast(Kind, kind), key, _parse_filters(query, text))


def parse_all(texts: Iterable[str], resolve: Resolve) -> tuple[ChainSubscription, ...]:
    """Parse all texts, without repeats.

    The slot subscription is always included, and first, because all bounds are measured in slots. Raises the same
    ConfigError as `parse`.
    """
    return tuple(dict.fromkeys((SLOTS, *(parse(text, resolve) for text in texts))))


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

"""Parses a client's body into a checked request. Every fault is named, and no amount is ever a float. Pure."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import msgspec

from headrace.model.amounts import BaseUnits, Bps, decimal_of
from headrace.model.identity import SUBJECT_LENGTH_MAX, is_subject
from headrace.model.keys import USDC_MINT, USDT_MINT, WSOL_MINT, is_key
from headrace.model.orders import BPS_WHOLE, U64_MAX, OrderRefused, OrderRequest, Token
from headrace.order_types import ORDER_TYPES, OrderBody, Terms, WrongTerms
from headrace.order_types.register import fields_by_type, order_type

TOKENS: Final = {
    "SOL": Token(WSOL_MINT, 9),
    "USDC": Token(USDC_MINT, 6),
    "USDT": Token(USDT_MINT, 6),
}
"""Tokens that may be given by name; any other token is given by its mint."""

AMOUNTS: Final = ("amount", "uiAmount")
"""Fields that may give the amount."""
ANONYMOUS: Final = "anonymous"
DEFAULT_SLIPPAGE_BPS: Final = 100
TEXT_MAX: Final = 128
EXPIRES_IN_MS_MAX: Final = 2**45

_BY_MINT: Final = {token.mint: token for token in TOKENS.values()}
_DIGITS_MAX: Final = 40


class _Fault(Exception):  # noqa: N818  (a finding)
    """Fault in one field."""


def decimals_of(mint: str) -> int | None:
    """Return the number of decimals of a mint's token; None if unknown."""
    token = find_token(mint)
    return None if token is None else token.decimals


_Read: TypeAlias = Callable[[], Any]  # an alias: the annotations of an inner function are evaluated at each call


def read_json(text: bytes) -> Any:
    """Parse a JSON body. Numbers with a fraction become Decimal.

    Raises OrderRefused 400. Refused are also texts that RFC 8259 lets parsers read differently: an object with the same
    key twice, NaN, and numbers or nesting beyond any limit.
    """
    try:
        return json.loads(
            text.decode("utf-8"), parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_once
        )
    except (ValueError, ArithmeticError, RecursionError) as error:
        message = "the body is not JSON as RFC 8259 has it"
        raise OrderRefused(HTTPStatus.BAD_REQUEST, "malformed_json", message) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def find_token(text: str) -> Token | None:
    """Return a token by name or mint; its decimals are None if the mint is not in `TOKENS`. None for any other text."""
    return TOKENS.get(text) or _BY_MINT.get(text) or (Token(text) if is_key(text) else None)


def read_request(body: Any, *, amount_max: int, user_id: str | None = None) -> OrderRequest:
    """Check a body and return its request. Numbers with a fraction must be Decimal. Unknown fields are ignored.

    `user_id`, as authenticated, replaces the body's user. Raises OrderRefused 400 naming all faults.
    """
    if not isinstance(body, dict):
        raise OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_body", "expected a JSON object")
    faults: dict[str, str] = {}

    def take(name: str, read: _Read) -> Any:
        try:
            return read()
        except _Fault as fault:
            faults[name] = str(fault)
            return None

    token_in = take("tokenIn", lambda: _token(body.get("tokenIn")))
    token_out = take("tokenOut", lambda: _token(body.get("tokenOut")))
    if token_in is not None and token_out is not None and token_in.mint == token_out.mint:
        faults["tokenOut"] = "is the same as tokenIn"
    amount = take(given_of(body, *AMOUNTS), lambda: _amount(body, token_in, amount_max))
    slippage_bps = take(given_of(body, "slippage", "slippageBps"), lambda: _slippage(body))
    request: dict[str, Any] = {
        "type": take("type", lambda: _one_of(body.get("type", "market"), tuple(ORDER_TYPES))),
        "min_out": take("minOut", lambda: _base_units(body["minOut"]) if body.get("minOut") is not None else None),
        "priority": take("priority", lambda: _integer(body.get("priority", 5), 0, 9)),
        "expires_at_ms": take("expiresAt", lambda: _expiry(body)),
        "expires_in_ms": take("expiresInMs", lambda: _expires_in(body.get("expiresInMs"))),
        "client_order_id": take("clientOrderId", lambda: _text(body.get("clientOrderId"))),
        "user_id": user_id or take("userId", lambda: _user(body.get("userId", ANONYMOUS))),
        "mode": take("execution", lambda: _mode(body.get("execution", {}))),
    }
    terms = Terms()
    if request["type"] is not None and token_in is not None and token_out is not None and amount is not None:
        terms = _terms(request["type"], OrderBody(body, token_in, token_out, amount), faults)
    if terms.least_out is not None:
        request["min_out"] = max(terms.least_out, request["min_out"] or 0)
    if faults:
        raise invalid("the order can't be taken as it is", faults)
    return OrderRequest(
        said_in=body["tokenIn"],
        said_out=body["tokenOut"],
        token_in=token_in,
        token_out=token_out,
        amount=amount,
        slippage_bps=slippage_bps,
        trigger=terms.trigger,
        watch=msgspec.UNSET if terms.watch is None else terms.watch,
        **request,
    )


def given_of(body: Mapping[str, Any], *names: str) -> str:
    """Return the first of these fields that has a value in the body; the first of `names` if none has."""
    return next((name for name in names if body.get(name) is not None), names[0])


def begun(request: OrderRequest, now_ms: int) -> OrderRequest:
    """Return the request with its expiry as a point in time, in wall ms."""
    if request.expires_in_ms is None:
        return request
    return msgspec.structs.replace(request, expires_at_ms=now_ms + request.expires_in_ms)


def _terms(name: str, asked: OrderBody, faults: dict[str, str]) -> Terms:
    """Read the fields that belong to the order's type.

    A field that belongs to another type is a fault. Otherwise, for example, a stop price on a market order would be
    silently ignored.
    """
    for known, fields in fields_by_type().items():
        if known != name:
            faults |= {field.name: f"belongs to type {known}" for field in fields if field.name in asked.body}
    try:
        terms = order_type(name).terms(asked)
    except WrongTerms as wrong:
        faults[wrong.field] = str(wrong)
        return Terms()
    if terms.least_out is not None and terms.least_out > U64_MAX:
        fields_of = [field.name for field in order_type(name).fields]
        faults[given_of(asked.body, *fields_of)] = "asks for more than 64 bits of base units"
    return terms


def invalid(message: str, faults: dict[str, str]) -> OrderRefused:
    """Return a refusal of an order, status 400, with the faults by field."""
    named = "; ".join(f"{name} {fault}" for name, fault in faults.items())
    return OrderRefused(HTTPStatus.BAD_REQUEST, "invalid_order", f"{message}: {named}", fields=faults)


def _token(given: Any) -> Token:
    if given is None:
        raise _Fault("is missing")
    token = find_token(given) if isinstance(given, str) else None
    if token is None:
        raise _Fault(f"is not a mint (base58 of 32 bytes) nor one of {', '.join(TOKENS)}")
    return token


def _amount(body: dict[str, Any], token: Token | None, amount_max: int) -> BaseUnits:
    """Read the amount.

    `amount` as text is in base units. As a number (from earlier clients) it is in whole tokens, like `uiAmount`.
    """
    amount, ui_amount = body.get("amount"), body.get("uiAmount")
    if amount is None and ui_amount is None:
        raise _Fault("is missing: give amount (text: base units) or uiAmount (whole tokens)")
    if amount is not None and ui_amount is not None:
        raise _Fault("is given twice: give either amount or uiAmount")
    if isinstance(amount, str):
        units = _base_units(amount)
    elif token is None:
        return BaseUnits(0)  # never used: tokenIn already has a fault
    else:
        units = _scaled(amount if ui_amount is None else ui_amount, token)
    if units > amount_max:
        raise _Fault(f"is more than {amount_max} base units")
    return units


def _scaled(given: Any, token: Token) -> BaseUnits:
    """Convert whole tokens to base units, exactly."""
    if token.decimals is None:
        raise _Fault("the decimals of this mint are not known: give amount as text, in base units")
    try:
        number = decimal_of(given)
    except ValueError as error:
        raise _Fault(str(error)) from None
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or len(digits) > _DIGITS_MAX or abs(exponent) > _DIGITS_MAX:
        raise _Fault("is beyond what a token has")
    shift = exponent + token.decimals
    units = int("".join(map(str, digits)))
    if shift < 0:
        units, rest = divmod(units, 10**-shift)
        if rest:
            raise _Fault(f"has more than {token.decimals} decimals")
    return _checked(-units if sign else units * 10 ** max(0, shift))


def _base_units(given: Any) -> BaseUnits:
    if not isinstance(given, str) or not (given.isascii() and given.isdigit() and len(given) <= 20):
        raise _Fault("is not base units: digits as text")
    return _checked(int(given))


def _checked(units: int) -> BaseUnits:
    if units <= 0:
        raise _Fault("is not more than 0")
    if units > U64_MAX:
        raise _Fault("is more than 64 bits")
    return BaseUnits(units)


def _slippage(body: dict[str, Any]) -> Bps:
    """Read `slippageBps`, or `slippage` as a fraction. A fraction is rounded down to whole basis points."""
    bps, fraction = body.get("slippageBps"), body.get("slippage")
    if bps is not None and fraction is not None:
        raise _Fault("give either slippage or slippageBps")
    if bps is not None:
        return Bps(_integer(bps, 0, BPS_WHOLE))
    if fraction is None:
        return Bps(DEFAULT_SLIPPAGE_BPS)
    if isinstance(fraction, bool) or not isinstance(fraction, int | Decimal) or not 0 <= fraction <= 1:
        raise _Fault("is not a number from 0 to 1")
    return Bps(int(fraction * BPS_WHOLE))


def _integer(given: Any, low: int, high: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not low <= given <= high:
        raise _Fault(f"is not an integer from {low} to {high}")
    return given


def _expiry(body: dict[str, Any]) -> int | None:
    at, after = body.get("expiresAt"), body.get("expiresInMs")
    if at is not None and after is not None:
        raise _Fault("is given twice: give either expiresAt or expiresInMs")
    return None if at is None else _integer(at, 0, 2**53)


def _expires_in(given: Any) -> int | None:
    return None if given is None else _integer(given, 1, EXPIRES_IN_MS_MAX)


def _text(given: Any) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not (0 < len(given) <= TEXT_MAX and given.isascii() and given.isprintable()):
        raise _Fault(f"is not 1 to {TEXT_MAX} printable ASCII characters")
    return given


def _user(given: Any) -> str:
    if not is_subject(given):
        raise _Fault(f"is not 1 to {SUBJECT_LENGTH_MAX} printable ASCII characters")
    return str(given)


def _one_of(given: Any, known: tuple[str, ...]) -> str:
    if given not in known:
        raise _Fault(f"is not one of {', '.join(known)}")
    return str(given)


def _mode(given: Any) -> str:
    mode = given.get("mode", "mock") if isinstance(given, dict) else None
    return _one_of(mode, ("mock",))

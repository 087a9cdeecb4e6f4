"""The history over HTTP: past trades, tokens, candles, gaps and slots, page by page."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, NoReturn, TypeAlias, TypeVar

import msgspec
from litestar import Request, Response, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter

from headrace.gateway.problems import Refused, wrong
from headrace.gateway.routes import guards
from headrace.gateway.routes.context import context_of
from headrace.gateway.routes.schema_parts import problems
from headrace.history import History
from headrace.history.candles import INTERVALS_S, Candle, shown
from headrace.history.rows import (
    SLOT_MAX,
    CandleQuery,
    GapQuery,
    SlotQuery,
    StoredToken,
    StoredTrade,
    TokenQuery,
    TradeQuery,
)
from headrace.model.errors import ElsewhereError, TransientError
from headrace.model.keys import WSOL_MINT, is_key
from headrace.model.topics import CANDLES_PREFIX
from headrace.model.updates import Commitment, GapState, SlotStatus

T = TypeVar("T")

JSON_TYPE: Final = "application/json"
TIME_S_MAX: Final = 2**32

Side: TypeAlias = Literal["buy", "sell"]
Interval: TypeAlias = Literal["1s", "5s", "15s", "1m", "5m", "15m", "1h", "4h", "1d"]

_Mint = Annotated[str | None, QueryParameter(max_length=64, description="Only of this mint, as the base")]
_Cursor = Annotated[
    str | None, QueryParameter(max_length=64, description="The `next` of the page before, of the same query")
]
_Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="How many at most; a page may have fewer")]
_FromTime = Annotated[
    int | None, QueryParameter(name="from", ge=0, le=TIME_S_MAX, description="From this time on, in Unix seconds")
]
_ToTime = Annotated[
    int | None, QueryParameter(name="to", ge=0, le=TIME_S_MAX, description="Before this time, in Unix seconds")
]
_FromSlot = Annotated[int, QueryParameter(name="from", ge=0, le=SLOT_MAX, description="From this slot on")]
_ToSlot = Annotated[int, QueryParameter(name="to", ge=0, le=SLOT_MAX, description="Up to this slot")]


class TradeItem(msgspec.Struct, frozen=True):
    """A trade. Amounts are in base units; `time` is the chain's, in Unix seconds.

    `mint` (the base) and `quote_mint` are null where they were never known. `commitment` is what is known now.
    """

    event_id: str
    slot: str
    signature: str
    time: int
    program: str
    program_id: str
    side: Side
    mint: str | None
    quote_mint: str | None
    base_amount: str
    quote_amount: str
    user: str | None
    authority: str | None
    pool: str | None
    commitment: Commitment


class TokenItem(msgspec.Struct, frozen=True):
    """A token, by the event that made it."""

    event_id: str
    slot: str
    signature: str
    program: str
    mint: str
    name: str
    symbol: str
    creator: str
    commitment: Commitment


class CandleItem(msgspec.Struct, frozen=True):
    """The trades of one interval, which begins at `time` (Unix seconds).

    Prices are in whole quote tokens for one whole base token, cut after 12 digits; null where no trade was large enough
    to set one, or decimals are not known. Amounts are sums, in base units.
    """

    time: int
    open: str | None
    high: str | None
    low: str | None
    close: str | None
    base_amount: str
    quote_amount: str
    trades: int


class GapItem(msgspec.Struct, frozen=True):
    """Slots in which something of a feed may be missing, both included.

    With `program` only trades and tokens of that program's events are. The feed `history` is that of this history.
    """

    gap_id: str
    feed: str
    program: str | None
    from_slot: str
    to_slot: str
    state: GapState
    reason: str


class SlotItem(msgspec.Struct, frozen=True):
    """A slot as far as is known; `reason` says why a dead one is dead."""

    slot: str
    status: SlotStatus
    parent: str | None
    reason: str | None


class TradePage(msgspec.Struct, frozen=True):
    """Trades, newest first. `next`, passed as `cursor`, gives the page that follows; null: nothing follows."""

    items: list[TradeItem]
    next: str | None


class TokenPage(msgspec.Struct, frozen=True):
    """Tokens, newest first. `next`, passed as `cursor`, gives the page that follows; null: nothing follows."""

    items: list[TokenItem]
    next: str | None


class CandlePage(msgspec.Struct, frozen=True):
    """Candles in which anything was traded, oldest first. `next`, passed as `cursor`, gives the page that follows."""

    mint: str
    quote_mint: str
    interval: Interval
    items: list[CandleItem]
    next: str | None


class GapPage(msgspec.Struct, frozen=True):
    """Gaps, newest first. `next`, passed as `cursor`, gives the page that follows; null: nothing follows."""

    items: list[GapItem]
    next: str | None


class SlotPage(msgspec.Struct, frozen=True):
    """Slots, newest first. `next`, passed as `cursor`, gives the page that follows; null: nothing follows.

    `first` and `last` are the slots between which the history has anything; null in an empty one.
    """

    first: str | None
    last: str | None
    items: list[SlotItem]
    next: str | None


def _described(page: type[msgspec.Struct], *more: HTTPStatus) -> dict[int, ResponseSpec]:
    """Return the `responses` of a handler that answers with this page."""
    return {
        int(HTTPStatus.OK): ResponseSpec(page, description="A page", media_type=JSON_TYPE, generate_examples=False),
        int(HTTPStatus.NOT_MODIFIED): ResponseSpec(
            None, description="As `If-None-Match` says, the client has it", generate_examples=False
        ),
        **problems(HTTPStatus.BAD_REQUEST, *more, HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.SERVICE_UNAVAILABLE),
    }


@get(
    "/api/trades",
    operation_id="listTrades",
    summary="List past trades",
    tags=["history"],
    responses=_described(TradePage),
)
async def list_trades(
    request: Request[Any, Any, Any],
    mint: _Mint = None,
    program: Annotated[
        str | None, QueryParameter(min_length=1, max_length=64, description="Only of this program, by name or id")
    ] = None,
    user: Annotated[str | None, QueryParameter(max_length=64, description="Only of this user")] = None,
    from_s: _FromTime = None,
    to_s: _ToTime = None,
    limit: _Limit = 100,
    cursor: _Cursor = None,
) -> Response[bytes]:
    """List trades, newest first; by a program alone a page may be empty though more follow."""
    _check_keys(mint=mint, user=user)
    _check_order(from_s, to_s)
    await guards.admit(request, f"trades:{mint or program or '*'}")
    query = TradeQuery(mint, program, user, from_s, to_s, limit)
    page = await _ask(request, lambda history: history.trades(query._replace(before=_read(cursor, query))))
    return _answer(request, TradePage([trade_item(trade) for trade in page.items], _cursor(page.next, query)))


@get(
    "/api/tokens",
    operation_id="listTokens",
    summary="List tokens",
    tags=["history"],
    responses=_described(TokenPage),
)
async def list_tokens(
    request: Request[Any, Any, Any],
    creator: Annotated[str | None, QueryParameter(max_length=64, description="Only of this creator")] = None,
    limit: _Limit = 100,
    cursor: _Cursor = None,
) -> Response[bytes]:
    """List tokens, newest first."""
    _check_keys(creator=creator)
    await guards.admit(request, "token_updates")
    query = TokenQuery(None, creator, limit)
    page = await _ask(request, lambda history: history.tokens(query._replace(before=_read(cursor, query))))
    return _answer(request, TokenPage([token_item(token) for token in page.items], _cursor(page.next, query)))


@get(
    "/api/tokens/{mint:str}",
    operation_id="readToken",
    summary="Look at a token",
    tags=["history"],
    responses=_described(TokenItem, HTTPStatus.NOT_FOUND),
)
async def read_token(
    request: Request[Any, Any, Any], mint: Annotated[str, PathParameter(description="The token's mint")]
) -> Response[bytes]:
    """Get a token by its mint."""
    _check_keys(mint=mint)
    await guards.admit(request, f"token:{mint}")
    page = await _ask(request, lambda history: history.tokens(TokenQuery(mint, limit=1)))
    if not page.items:
        raise Refused(HTTPStatus.NOT_FOUND, "the history has no such token")
    return _answer(request, token_item(page.items[0]))


@get(
    "/api/candles/{mint:str}",
    operation_id="readCandles",
    summary="Read a mint's candles",
    tags=["history"],
    responses=_described(CandlePage),
)
async def read_candles(
    request: Request[Any, Any, Any],
    mint: Annotated[str, PathParameter(description="The mint that is traded")],
    interval: Annotated[Interval, QueryParameter(description="The length of a candle")] = "1m",
    quote: Annotated[
        str, QueryParameter(max_length=64, description="The mint that is paid in; wrapped SOL when absent")
    ] = WSOL_MINT,
    from_s: _FromTime = None,
    to_s: _ToTime = None,
    limit: _Limit = 500,
    cursor: _Cursor = None,
) -> Response[bytes]:
    """Read candles, oldest first; without `from` the last ones before `to`, without both the newest."""
    _check_keys(mint=mint, quote=quote)
    _check_order(from_s, to_s)
    await guards.admit(request, f"{CANDLES_PREFIX}{mint}:{quote}:{interval}")
    query = CandleQuery(mint, quote, INTERVALS_S[interval], from_s, to_s, limit)
    page = await _ask(request, lambda history: history.candles(query._replace(after=_read(cursor, query))))
    items = [candle_item(candle) for candle in page.items]
    return _answer(request, CandlePage(mint, quote, interval, items, _cursor(page.next, query)))


@get("/api/gaps", operation_id="listGaps", summary="List gaps", tags=["history"], responses=_described(GapPage))
async def list_gaps(
    request: Request[Any, Any, Any],
    from_slot: _FromSlot = 0,
    to_slot: _ToSlot = SLOT_MAX,
    feed: Annotated[str | None, QueryParameter(max_length=128, description="Only of this feed")] = None,
    limit: _Limit = 100,
    cursor: _Cursor = None,
) -> Response[bytes]:
    """List the gaps that touch the slots, newest first: where trades and tokens may be missing."""
    _check_order(from_slot, to_slot)
    await guards.admit(request, "slots")
    query = GapQuery(from_slot, to_slot, feed, limit)
    page = await _ask(request, lambda history: history.gaps(query._replace(before=_read(cursor, query))))
    items = [
        GapItem(gap.gap_id, gap.feed, gap.program, str(gap.from_slot), str(gap.to_slot), gap.state, gap.reason)
        for gap in page.items
    ]
    return _answer(request, GapPage(items, _cursor(page.next, query)))


@get("/api/slots", operation_id="listSlots", summary="List slots", tags=["history"], responses=_described(SlotPage))
async def list_slots(
    request: Request[Any, Any, Any],
    from_slot: _FromSlot = 0,
    to_slot: _ToSlot = SLOT_MAX,
    limit: _Limit = 100,
    cursor: _Cursor = None,
) -> Response[bytes]:
    """List slots, newest first, and say where the history begins and ends."""
    _check_order(from_slot, to_slot)
    await guards.admit(request, "slots")
    query = SlotQuery(from_slot, to_slot, limit)
    page = await _ask(request, lambda history: history.slots(query._replace(before=_read(cursor, query))))
    extent = await _ask(request, lambda history: history.extent())
    items = [SlotItem(str(slot.slot), slot.status, _text(slot.parent), slot.reason) for slot in page.items]
    return _answer(request, SlotPage(_text(extent.first), _text(extent.last), items, _cursor(page.next, query)))


def trade_item(trade: StoredTrade) -> TradeItem:
    """Return a trade as it is shown."""
    return TradeItem(
        event_id=trade.event_id,
        slot=str(trade.slot),
        signature=trade.signature,
        time=trade.time_s,
        program=trade.program,
        program_id=trade.program_id,
        side=trade.side,
        mint=trade.mint,
        quote_mint=trade.quote_mint,
        base_amount=str(trade.base_amount),
        quote_amount=str(trade.quote_amount),
        user=trade.user,
        authority=trade.authority,
        pool=trade.pool,
        commitment=trade.commitment,
    )


def token_item(token: StoredToken) -> TokenItem:
    """Return a token as it is shown; half of a pair of surrogates, which JSON has no place for, is a question mark."""
    name, symbol = (text.encode("utf-8", "replace").decode() for text in (token.name, token.symbol))
    return TokenItem(
        token.event_id, str(token.slot), token.signature, token.program, token.mint, name, symbol, token.creator,
        token.commitment,
    )  # fmt: skip


def candle_item(candle: Candle) -> CandleItem:
    """Return a candle as it is shown."""
    return CandleItem(**shown(candle))


async def _ask(request: Request[Any, Any, Any], ask: Callable[[History], Awaitable[T]]) -> T:
    history: History | None = context_of(request).parts.history
    if history is None:
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "this server keeps no history")
    try:
        return await ask(history)
    except ElsewhereError as error:
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, str(error)) from error
    except TransientError as error:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "temporarily unavailable") from error


def _answer(request: Request[Any, Any, Any], page: msgspec.Struct) -> Response[bytes]:
    """Return the page, or 304 to a client that has it."""
    body = msgspec.json.encode(page)
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if etag in known or known == ["*"]:
        return Response(b"", status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, media_type=JSON_TYPE, headers=headers)


def _bound(query: Sequence[object]) -> str:
    """Return a short text that differs for queries that differ in more than the size of their pages."""
    fields = query._replace(limit=0)  # type: ignore[attr-defined]
    return hashlib.blake2b(repr((type(query).__name__, *fields)).encode(), digest_size=6).hexdigest()


def _cursor(number: int | None, query: Sequence[object]) -> str | None:
    return None if number is None else f"{number:x}-{_bound(query)}"


def _read(cursor: str | None, query: Sequence[object]) -> int | None:
    """Return the number in a cursor. Raise Refused 400 for one of another query."""
    if cursor is None:
        return None
    number, _, bound = cursor.partition("-")
    if bound != _bound(query) or not 0 < len(number) <= 16 or not set(number) <= set("0123456789abcdef"):
        _refuse("cursor", "is not the `next` of a page of this query", cursor)
    return min(int(number, 16), 2**63 - 1)


def _check_keys(**keys: str | None) -> None:
    for name, key in keys.items():
        if key is not None and not is_key(key):
            _refuse(name, "is no base58 public key of 32 bytes", key)


def _check_order(first: int | None, last: int | None) -> None:
    if first is not None and last is not None and first > last:
        _refuse("from", "is after `to`", first)


def _refuse(name: str, message: str, given: object) -> NoReturn:
    raise Refused(HTTPStatus.BAD_REQUEST, "a parameter is wrong", errors=[wrong(name, message, given)])


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


HANDLERS: Final = (list_trades, list_tokens, read_token, read_candles, list_gaps, list_slots)

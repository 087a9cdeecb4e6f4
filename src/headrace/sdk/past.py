"""The history of a server for Python programs: past trades, tokens, candles, gaps and slots, page by page over HTTP."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from urllib.parse import quote

import httpx
import msgspec

from headrace.model.errors import ConfigError
from headrace.runtime.backoff import Backoff
from headrace.runtime.clock import Clock, SystemClock
from headrace.runtime.http_answers import is_final, retry_after_s
from headrace.sdk.values import Refused

PAGE: Final = 1_000
TIMEOUT_S: Final = 30.0
RETRY_AFTER_MAX_S: Final = 60.0

Item: TypeAlias = dict[str, Any]


class _Page(msgspec.Struct, frozen=True):
    items: list[Item]
    next: str | None


class _Problem(msgspec.Struct, frozen=True):
    detail: str = ""


_page: Final = msgspec.json.Decoder(_Page)
_problem: Final = msgspec.json.Decoder(_Problem)


class Past:
    """The history of a Headrace server. Use as `async with Past("http://127.0.0.1:8080", token=…) as past`.

    Each method yields all items of its query, as the route with the same name describes them (docs/reference/http.md).
    A page is asked for once the items before it are taken, so a slow reader holds one page. While the server can't be
    reached or is too busy, the page is asked for again, with jittered delays, without an end. Raises Refused if the
    server refuses the query.

    `token` is a JSON Web Token, or a function that returns a new one. `tls` has the trusted certificates for https.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], Awaitable[str]] | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError("url", "another kind of address", "an http:// or https:// URL")
        self._token, self._clock = token, clock or SystemClock()
        trusted: ssl.SSLContext | bool = tls if tls is not None else url.startswith("https://")
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, verify=trusted, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    def trades(
        self,
        *,
        mint: str | None = None,
        program: str | None = None,
        user: str | None = None,
        from_s: int | None = None,
        to_s: int | None = None,
    ) -> AsyncIterator[Item]:
        """Yield trades from `from_s` until before `to_s` (Unix seconds), newest first."""
        return self._items("/api/trades", {"mint": mint, "program": program, "user": user, "from": from_s, "to": to_s})

    def tokens(self, *, creator: str | None = None) -> AsyncIterator[Item]:
        """Yield tokens, newest first."""
        return self._items("/api/tokens", {"creator": creator})

    def candles(
        self,
        mint: str,
        *,
        interval: str = "1m",
        quote_mint: str | None = None,
        from_s: int = 0,
        to_s: int | None = None,
    ) -> AsyncIterator[Item]:
        """Yield the candles of a mint from `from_s` until before `to_s` (Unix seconds), oldest first."""
        query = {"interval": interval, "quote": quote_mint, "from": from_s, "to": to_s}
        return self._items(f"/api/candles/{quote(mint, safe='')}", query)

    def gaps(
        self, *, feed: str | None = None, from_slot: int | None = None, to_slot: int | None = None
    ) -> AsyncIterator[Item]:
        """Yield the gaps that overlap the slots, newest first: where trades and tokens may be missing."""
        return self._items("/api/gaps", {"feed": feed, "from": from_slot, "to": to_slot})

    def slots(self, *, from_slot: int | None = None, to_slot: int | None = None) -> AsyncIterator[Item]:
        """Yield slots, both ends included, newest first."""
        return self._items("/api/slots", {"from": from_slot, "to": to_slot})

    async def _items(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[Item]:
        params = {name: value for name, value in query.items() if value is not None} | {"limit": PAGE}
        while True:
            page = await self._ask(path, params)
            for item in page.items:
                yield item
            if page.next is None:
                return
            params["cursor"] = page.next

    async def _ask(self, path: str, params: Mapping[str, Any]) -> _Page:
        backoff = Backoff(initial_s=0.2, max_s=10.0)
        while True:
            try:
                answer = await self._http.get(path, params=dict(params), headers=await self._headers())
                if answer.is_success:
                    return _page.decode(answer.content)
            except (httpx.TransportError, msgspec.DecodeError):
                await self._clock.sleep(backoff.next_s())
                continue
            if is_final(answer.status_code) or answer.is_redirect or answer.status_code == HTTPStatus.NOT_IMPLEMENTED:
                raise Refused(answer.status_code, _detail(answer))
            asked_s = retry_after_s(answer.headers.get("Retry-After", ""), RETRY_AFTER_MAX_S)
            await self._clock.sleep(max(backoff.next_s(), asked_s or 0.0))

    async def _headers(self) -> dict[str, str]:
        if self._token is None:
            return {}
        token = self._token if isinstance(self._token, str) else await self._token()
        return {"Authorization": f"Bearer {token}"}


def _detail(answer: httpx.Response) -> str:
    try:
        return _problem.decode(answer.content).detail[:200] or answer.reason_phrase
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return answer.reason_phrase

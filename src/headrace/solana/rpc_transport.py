"""JSON-RPC over HTTP: several endpoints, fail-over, limits on size, time and concurrency."""

import asyncio
import functools
import itertools
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

import httpx
import msgspec

from headrace import __version__
from headrace.config import Setting
from headrace.model.errors import BadInputError, TransientError
from headrace.model.redact import redact, redact_url
from headrace.runtime.breaker import Breaker
from headrace.runtime.clock import Clock
from headrace.runtime.http_answers import retry_after_s
from headrace.solana.rpc_bodies import ACCEPT_ENCODING, check_containers, read_body
from headrace.solana.rpc_errors import INVALID_REQUEST, RpcError, rpc_error

T = TypeVar("T")

_REST_AFTER_429_S: Final = 1.0
_REST_S_MAX: Final = 60.0
_ERROR_TEXT_MAX: Final = 300

ANSWER_BYTES_MAX: Final = 2 * 1024 * 1024
"""Maximum number of bytes of an answer, for calls without a limit of their own."""


class RpcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[rpc]`: JSON-RPC over HTTP."""

    urls: Annotated[
        tuple[str, ...],
        Setting(
            "HTTP endpoints, tried in this order; empty: derived from SOLANA_RPC_WS",
            env=("SOLANA_RPC_URL",),
            kind="http_url",
        ),
    ] = ()
    timeout_s: Annotated[
        float, msgspec.Meta(gt=0, le=300), Setting("longest wait for an answer", env=("RPC_TIMEOUT_S",))
    ] = 10.0
    response_bytes_max: Annotated[
        int,
        msgspec.Meta(ge=1024),
        Setting("most bytes of an answer; most calls have a lower limit", env=("RPC_RESPONSE_BYTES_MAX",)),
    ] = 16 * 1024 * 1024
    concurrency: Annotated[
        int, msgspec.Meta(ge=1, le=1024), Setting("most calls at the same time", env=("RPC_CONCURRENCY",))
    ] = 16


class _Failure(msgspec.Struct):
    code: int
    message: str = ""


class _Answer(msgspec.Struct):
    id: int | str | None = None  # some proxies answer with the id as text
    result: msgspec.Raw = msgspec.Raw()
    error: _Failure | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_BATCH: Final = msgspec.json.Decoder(list[_Answer] | _Answer)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Endpoint:
    """One URL with its circuit breaker, and the end of the pause that the node has asked for."""

    def __init__(self, url: str, breaker: Breaker | None) -> None:
        self.url, self.breaker = url, breaker
        self.label = redact_url(url)
        self.rest_until = 0.0

    def allow(self, now: float) -> bool:
        return now >= self.rest_until and (self.breaker is None or self.breaker.allow(now))


class RpcTransport:
    """Client of one or several nodes. Close it with `aclose`.

    A call goes to the first endpoint that is not in a pause and whose breaker is not open. If that endpoint fails, the
    call goes to the next. If no endpoint could answer, the call raises:
    - TransientError for a network error, a time-out, 429, 5xx, or an answer that is not JSON-RPC; RpcNotYetError if a
      node said that it can't answer yet. A retry may succeed. `retry_after_s` is set if a node named it.
    - RpcError if a node refused, with the node's code.
    - BadInputError for a well-formed answer whose result has the wrong type, does not match the request, or is too
      large.

    Error messages name endpoints with their secrets hidden.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        clock: Clock,
        settings: RpcSettings | None = None,
        breakers: Sequence[Breaker] | None = None,
    ) -> None:
        if not urls:
            raise ValueError("no endpoint")
        self._endpoints = [
            Endpoint(url, breaker) for url, breaker in itertools.zip_longest(urls, breakers or ()) if url is not None
        ]
        settings = settings or RpcSettings()
        self._clock, self._settings = clock, settings
        self._ids = itertools.count(1)
        self._gate = asyncio.Semaphore(settings.concurrency)
        self._client = httpx.AsyncClient(
            headers={
                "user-agent": f"headrace/{__version__}",
                "content-type": "application/json",
                "accept-encoding": ACCEPT_ENCODING,
            },
            follow_redirects=False,  # the endpoint's API key must not go to another server
            timeout=None,  # noqa: S113  (the whole call has a time-out; a time-out per read never ends a slow stream)
            verify=_tls(),
            limits=httpx.Limits(max_connections=settings.concurrency, keepalive_expiry=30),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        params: Sequence[object],
        decoder: msgspec.json.Decoder[T],
        timeout_s: float | None = None,
        *,
        bytes_max: int | None = ANSWER_BYTES_MAX,
        check: Callable[[T], object] | None = None,
        suffices: Callable[[T], bool] | None = None,
    ) -> T:
        """Return the result of one call, decoded by `decoder`, from an answer of at most `bytes_max` bytes.

        If `bytes_max` is None, the setting decides. `check` raises BadInputError or TransientError for a result that
        does not match the request. The next endpoint is then asked, as after any other failure. A result that fails
        `suffices` is returned only if no endpoint has one that passes.
        """
        request_id = next(self._ids)
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        body = msgspec.json.encode(request)
        bytes_max = min(bytes_max or sys.maxsize, self._settings.response_bytes_max)
        refusal: RpcError | BadInputError | TransientError | None = None
        poor: list[T] = []
        async with self._gate:
            for endpoint in self._endpoints:
                if not endpoint.allow(self._clock.monotonic()):
                    continue
                try:
                    raw = await self._post(endpoint, body, timeout_s or self._settings.timeout_s, bytes_max)
                    result = _result(raw, request_id, method, endpoint.label, decoder)
                    if check is not None:
                        check(result)
                except RpcError as error:
                    self._tell(endpoint, worked=True)
                    if error.everywhere:
                        raise
                    refusal = error
                except (BadInputError, TransientError) as error:
                    self._tell(endpoint, worked=False)
                    refusal = error
                else:
                    self._tell(endpoint, worked=True)
                    if suffices is None or suffices(result):
                        return result
                    poor.append(result)
        if poor:
            return next((result for result in poor if result is not None), poor[0])
        if refusal is not None:
            raise refusal
        wait_s = min(endpoint.rest_until for endpoint in self._endpoints) - self._clock.monotonic()
        raise TransientError(f"{method}: every endpoint rests", retry_after_s=max(0.0, wait_s))

    @property
    def endpoints(self) -> int:
        """The number of endpoints."""
        return len(self._endpoints)

    def rests_s(self, number: int) -> float:
        """Return the seconds until the endpoint may be asked again; 0 if it may be asked now."""
        now, endpoint = self._clock.monotonic(), self._endpoints[number]
        if endpoint.allow(now):
            return 0.0
        resting_s = endpoint.rest_until - now
        return max(resting_s, endpoint.breaker.retry_in_s(now) if endpoint.breaker is not None else 0.0, 0.05)

    async def ask_each(
        self,
        number: int,
        method: str,
        params_each: Sequence[Sequence[object]],
        decoder: msgspec.json.Decoder[T],
        *,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> list[T | RpcError | BadInputError | None]:
        """Return the results of several calls of one method, sent to one endpoint as one JSON-RPC batch.

        In place of its result, a refused call has its error, and a call without an answer has None. The caller must
        check that each result matches its request. `bytes_max` applies to each answer. Raises TransientError or
        BadInputError if the endpoint did not answer the batch, and RpcError if it refused the batch as a whole.
        """
        endpoint, count = self._endpoints[number], len(params_each)
        ids = [next(self._ids) for _ in params_each]
        requests = [
            {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
            for request_id, params in zip(ids, params_each, strict=True)
        ]
        body = msgspec.json.encode(requests if count > 1 else requests[0])
        bytes_max = min(bytes_max * count, self._settings.response_bytes_max)
        try:
            async with self._gate:
                raw = await self._post(endpoint, body, self._settings.timeout_s, bytes_max)
            answers = _answers(raw, method, endpoint.label, count)
        except RpcError:
            self._tell(endpoint, worked=True)
            raise
        except (BadInputError, TransientError):
            self._tell(endpoint, worked=False)
            raise
        results: list[T | RpcError | BadInputError | None] = []
        for request_id in ids:
            answer = answers.get(request_id) or answers.get(str(request_id))
            try:
                results.append(None if answer is None else _read_answer(answer, method, endpoint.label, decoder))
            except (RpcError, BadInputError) as error:
                results.append(error)
        self._tell(endpoint, worked=not any(isinstance(result, BadInputError) for result in results))
        return results

    async def _post(self, endpoint: Endpoint, body: bytes, timeout_s: float, bytes_max: int) -> bytes:
        """Return the body of a 200 answer, or of an error status with a JSON body."""
        try:
            async with asyncio.timeout(timeout_s), self._client.stream("POST", endpoint.url, content=body) as response:
                status = response.status_code
                if status == 429 or status >= 500:
                    raise self._sent_away(endpoint, response)
                raw = await read_body(response, bytes_max)
        except BadInputError as error:
            raise BadInputError(error.reason, f"{endpoint.label}: {error.detail}") from None
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            what = f"no answer in {timeout_s:g} s" if isinstance(error, TimeoutError) else redact(repr(error))
            raise TransientError(f"{endpoint.label}: {what[:_ERROR_TEXT_MAX]}") from None
        if status != 200 and not raw.lstrip().startswith(b"{"):
            raise RpcError(status, f"{endpoint.label}: HTTP status without JSON")
        return raw

    def _sent_away(self, endpoint: Endpoint, response: httpx.Response) -> TransientError:
        """Return the error for 429 and 5xx, and record the pause that the node asks for."""
        rest_s = retry_after_s(response.headers.get("retry-after", ""), _REST_S_MAX)
        if rest_s is None and response.status_code == 429:
            rest_s = _REST_AFTER_429_S
        if rest_s:
            endpoint.rest_until = self._clock.monotonic() + rest_s
        return TransientError(f"{endpoint.label}: HTTP {response.status_code}", retry_after_s=rest_s)

    def _tell(self, endpoint: Endpoint, *, worked: bool) -> None:
        if endpoint.breaker is None:
            return
        if worked:
            endpoint.breaker.success()
        else:
            endpoint.breaker.failure(self._clock.monotonic())


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the TLS context of all clients. It is created once: reading the certificate authorities takes 25 ms."""
    return httpx.create_ssl_context()


def _result(raw: bytes, request_id: int, method: str, label: str, decoder: msgspec.json.Decoder[T]) -> T:
    """Return the result from its envelope.

    Raises TransientError if the answer is not JSON-RPC or belongs to another call, because node or proxy have a
    problem. Raises BadInputError for a result of the wrong type, because a retry would get the same.
    """
    try:
        answer = _ANSWER.decode(raw)
    except _UNREADABLE as error:
        raise TransientError(f"{label}: {method}: not a JSON-RPC answer ({str(error)[:_ERROR_TEXT_MAX]})") from None
    ours = answer.id in (request_id, str(request_id))
    if not ours and (
        answer.error is None or answer.id is not None
    ):  # a node answers without an id if it can't parse the request
        raise TransientError(f"{label}: {method}: answer to another request")
    check_containers(raw)
    return _read_answer(answer, method, label, decoder)


def _answers(raw: bytes, method: str, label: str, count: int) -> dict[int | str | None, _Answer]:
    """Return the answers by id. Of two with the same id, the first is returned.

    A single object in answer to a batch is a refusal.
    """
    check_containers(raw, count)
    try:
        answers = _BATCH.decode(raw)
    except _UNREADABLE as error:
        raise TransientError(f"{label}: {method}: not a JSON-RPC answer ({str(error)[:_ERROR_TEXT_MAX]})") from None
    if isinstance(answers, _Answer) and count == 1 and answers.error is None:
        answers = [answers]
    if isinstance(answers, _Answer):
        failure = answers.error or _Failure(INVALID_REQUEST, "no batch")
        raise rpc_error(failure.code, redact(f"{method}: {failure.message}"[:_ERROR_TEXT_MAX]))
    return {answer.id: answer for answer in reversed(answers)}


def _read_answer(answer: _Answer, method: str, label: str, decoder: msgspec.json.Decoder[T]) -> T:
    if answer.error is not None:
        raise rpc_error(answer.error.code, redact(f"{method}: {answer.error.message}"[:_ERROR_TEXT_MAX]))
    try:
        return decoder.decode(answer.result)
    except _UNREADABLE as error:
        raise BadInputError("rpc_wrong_type", f"{label}: {method}: {str(error)[:_ERROR_TEXT_MAX]}") from None

"""`headrace orders`: place, watch, list and cancel orders of a running server, and read their logs."""

import argparse
import asyncio
import json
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from headrace.cli.access import Access, remedy
from headrace.cli.listening import printable
from headrace.model.errors import BadInputError, ConfigError, HeadraceError
from headrace.model.orders import TERMINAL
from headrace.order_types.register import fields_by_type
from headrace.protocol.codes import may_reconnect
from headrace.runtime.backoff import Backoff
from headrace.sdk.dialing import dial, refusal

TIMEOUT_S: Final = 15.0
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Maximum number of bytes of an answer. A page of 200 orders, or of 1,000 events, has less than half of this."""
COLUMNS: Final = ("ORDER", "STATUS", "TYPE", "IN", "OUT", "PRICE", "DEX", "USER")

Json = dict[str, Any]

_object: Final = msgspec.json.Decoder(Json)


class Problem(HeadraceError):  # noqa: N818  (RFC 9457 calls such answers problems)
    """The server refused the request, or could not be reached. The text is for a terminal."""


def place(arguments: argparse.Namespace) -> int:
    kind, terms = _terms(arguments)
    expires_in_s: float | None = arguments.expires_in
    wanted = {
        "type": kind,
        "tokenIn": arguments.token_in,
        "tokenOut": arguments.token_out,
        "amount" if arguments.base_units else "uiAmount": arguments.amount,
        **terms,
        "slippageBps": arguments.slippage_bps,
        "priority": arguments.priority,
        "expiresInMs": None if expires_in_s is None else round(expires_in_s * 1000),  # the same in every retry
        "userId": arguments.user,
    }
    body = {name: value for name, value in wanted.items() if value is not None}
    key = arguments.key or str(uuid.uuid4())
    try:
        order = ask(arguments, "POST", "/api/orders/execute", json=body, headers={"Idempotency-Key": key})
    except Problem as problem:
        if "fate unknown" not in str(problem):
            raise
        raise Problem(f"{problem}; ask again with --key {key}") from problem
    if expires_in_s is not None and order["expiresAt"] is None:
        raise Problem(f"{order['orderId']} is placed, but that server is too old for --expires-in: cancel it, or wait")
    print(json.dumps(order) if arguments.json else order["orderId"], flush=True)
    return _follow(arguments, order["orderId"], 0) if arguments.watch else 0


def _terms(arguments: argparse.Namespace) -> tuple[str, Json]:
    """Return the order's type and its fields from the options. Raises ConfigError for options of two types."""
    found: dict[str, Json] = {}
    options: list[str] = []
    for kind, fields in fields_by_type().items():
        for field in fields:
            value = None if field.option is None else getattr(arguments, field.option.replace("-", "_"))
            if value is not None and value != "":
                found.setdefault(kind, {})[field.name] = value
                options.append(f"--{field.option}")
    if len(found) > 1:
        raise ConfigError(options[-1], str(list(found.values())[-1]), f"either {' or '.join(options)}")
    return next(iter(found.items()), ("market", {}))


def watch(arguments: argparse.Namespace) -> int:
    return _follow(arguments, arguments.order, arguments.from_seq)


def list_orders(arguments: argparse.Namespace) -> int:
    names = ("user", "status", "mint", "limit", "cursor")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    page = ask(arguments, "GET", "/api/orders", params=given)
    if page.get("unreadable"):
        print(f"{page['unreadable']} more can't be read there: its log names them", file=sys.stderr)
    if arguments.json:
        for order in page["orders"]:
            print(json.dumps(order))
        return 0
    print(table(COLUMNS, [_row(order) for order in page["orders"]]))
    if page["nextCursor"]:
        print(f"more: --cursor {page['nextCursor']}")
    return 0


def cancel(arguments: argparse.Namespace) -> int:
    order = ask(arguments, "POST", f"/api/orders/{quote(arguments.order, safe='')}/cancel")
    over = order["status"] == "CANCELLED"
    outcome = "cancelled" if over else "asked for; its transaction may be on its way, so watch how it ends"
    print(json.dumps(order) if arguments.json else outcome)
    return 0


def events(arguments: argparse.Namespace) -> int:
    path, seq = f"/api/orders/{quote(arguments.order, safe='')}/events", 0
    while events := ask(arguments, "GET", path, params={"fromSeq": seq})["events"]:
        for event in events:
            print(json.dumps(event) if arguments.json else line_of(event))
        seq = events[-1]["seq"]
    return 0


def _row(order: Json) -> list[str]:
    given = f"{order['uiAmount'] or order['amount']} {order['tokenIn']}"
    price = order["executedPrice"] or (f"@ {order['trigger']['price']}" if order["trigger"] else "")
    status = "RESTING" if order["resting"] else order["status"]
    return [order["orderId"], status, order["type"], given, order["tokenOut"], price, order["dex"] or "",
            order["userId"]]  # fmt: skip


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines of columns that are as wide as their longest cell, two spaces apart."""
    cells = [columns, *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def line_of(event: Json) -> str:
    """Return one line for a person about a change of an order."""
    at = time.strftime("%H:%M:%S", time.gmtime(event["timestamp"] / 1000)) + f".{event['timestamp'] % 1000:03}Z"
    return printable("  ".join([f"{event['seq']:>3}", at, f"{event['status']:<9}", event["event"], *_details(event)]))


def _details(event: Json) -> Iterable[str]:
    if event.get("trigger"):
        yield f"at {event['trigger']['price'] or event['trigger']['out'] + '/' + event['trigger']['per']}"
    for each in event.get("quotes", ()):
        yield f"{each['dex']} {each['price'] or each['amountOut']}"
    for name in ("executedPrice", "amountOut", "errorReason", "txHash"):
        if event.get(name):
            yield f"{name} {event[name]}"


def _follow(arguments: argparse.Namespace, order_id: str, from_seq: int) -> int:
    over = _until_over(arguments.url, Access.of(arguments), order_id, from_seq, as_json=arguments.json)
    return 0 if asyncio.run(over) == "CONFIRMED" else 1


async def _until_over(url: str, access: Access, order_id: str, seq: int, *, as_json: bool) -> str:
    """Print the order's changes until it ends, reconnecting if needed. Return the status in which it ended."""
    backoff = Backoff(initial_s=0.2, max_s=5.0)
    address = f"ws{_checked(url)[4:]}/api/orders/{quote(order_id, safe='')}/stream"
    tls = await asyncio.to_thread(access.tls, url)
    while True:
        try:
            token = await asyncio.to_thread(access.read)
            async with dial(f"{address}?fromSeq={seq}", token, compression=False, tls=tls) as socket:
                async for text in socket:
                    frame: Json = json.loads(text)
                    if frame["type"] == "error":
                        hint = access.hint(frame["data"].get("code", 0))
                        raise Problem(f"the server refused: {printable(frame['data']['message'])}{hint}")
                    if frame["type"] == "update":
                        backoff.reset()
                        seq = frame["seq"]
                        print(json.dumps(frame) if as_json else line_of(frame), flush=True)
                    over = frame.get("status")
                    if over in TERMINAL and frame["seq"] >= frame.get("lastSeq", 0):
                        return str(over)
        except ConnectionClosed as closed:
            if closed.rcvd is not None and not may_reconnect(closed.rcvd.code):
                raise Problem(f"the server ended it: {closed.rcvd.code}{access.hint(closed.rcvd.code)}") from closed
        except InvalidStatus as error:
            refused = refusal(error) or f"HTTP {error.response.status_code}"
            hint = access.hint(error.response.status_code)
            raise Problem(f"the server refused: {printable(str(refused))}{hint}") from error
        except (OSError, InvalidHandshake, TimeoutError) as error:
            if seq == 0:
                raise Problem(f"{url}: {error}{remedy(str(error))}") from error
        await asyncio.sleep(backoff.next_s())


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ConfigError("--url", url, "an http:// or https:// URL")
    return url.rstrip("/")


def _read(answer: httpx.Response) -> bytes:
    """Return the body of an answer.

    Raises BadInputError for an encoding that was not requested, and for a body that is too large. Reading stops at the
    first byte beyond the limit.
    """
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise BadInputError("answer_coding", f"content coding {printable(coding[:32])!r}, expected none")
    body = bytearray()
    for part in answer.iter_raw():
        body += part
        if len(body) > ANSWER_BYTES_MAX:
            raise BadInputError("answer_too_large", f"more than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


def ask(arguments: argparse.Namespace, method: str, path: str, **more: Any) -> Json:
    """Return the JSON object of the answer. Raises Problem with the server's description of the fault."""
    url, access = arguments.url, Access.of(arguments)
    address, tls = _checked(url) + path, access.tls(url)
    headers = {"Accept-Encoding": "identity", **more.pop("headers", {}), **access.headers()}
    access.warn(url)
    fate = "" if method == "GET" else "; fate unknown"
    try:
        with httpx.stream(method, address, headers=headers, timeout=TIMEOUT_S, verify=tls or False, **more) as answer:
            text = _read(answer)
    except httpx.InvalidURL as error:
        raise ConfigError("--url", url, "an http:// or https:// URL") from error
    except httpx.HTTPError as error:
        fate = "" if isinstance(error, httpx.ConnectError) else fate
        raise Problem(f"{url}: {error or type(error).__name__}{remedy(str(error))}{fate}") from error
    except BadInputError as error:
        raise Problem(
            f"{url}: HTTP {answer.status_code} with {error.detail}: is that a Headrace server?{fate}"
        ) from error
    try:
        body = _object.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        status = f"HTTP {answer.status_code}"
        raise Problem(f"{url}: {status}, and no JSON object: is that a Headrace server?{fate}") from error
    if answer.is_success:
        return body
    parts = [body.get("detail") or body.get("title", "")]
    parts += [f"{wrong['name']} {wrong['message']}" for wrong in body.get("errors", ())]
    if method != "GET" and body.get("fate", "unknown" if answer.is_server_error else None) == "unknown":
        parts.append("fate unknown")
    raise Problem(printable(f"{answer.status_code} {'; '.join(parts)}{access.hint(answer.status_code)}"))

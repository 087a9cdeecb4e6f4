"""The command line: every command with its options. Imports only what loads quickly. Pure.

Each command names the function that runs it as `module:function`. The module is imported only for that command.
"""

import argparse
import difflib
import math
import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from headrace import __version__
from headrace.model.identity import SUBJECT_LENGTH_MAX, is_subject

SHELLS: Final = ("bash", "zsh", "fish")
BENCHES: Final = (
    "decode",
    "pipeline",
    "yellowstone",
    "gateway",
    "filters",
    "orders",
    "orders_overhead",
    "orders_chaos",
)
SERVER_URL: Final = "http://127.0.0.1:8080"
TOKEN_ENV: Final = "HEADRACE_TOKEN"  # noqa: S105  (the name of a variable)
UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
TTL_S_MAX: Final = 366 * 86_400

_NEAR_MISS: Final = 0.6


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that suggests the nearest command or option for a mistyped one.

    `later` adds options that need slow imports. It is called only when the command's options are needed.
    """

    later: Callable[["Parser"], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the known arguments. Return them, and the remaining arguments."""
        self._complete()
        return super().parse_known_args(args, namespace)

    def format_usage(self) -> str:
        """Return the usage on one or more lines."""
        self._complete()
        return super().format_usage()

    def _complete(self) -> None:
        later, self.later = self.later, None
        if later is not None:
            later(self)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse. If that fails, print an error and exit with 2. Without a command, print the help and exit with 0."""
        arguments, rest = self.parse_known_args(args, namespace)
        asked: argparse.ArgumentParser = getattr(arguments, "parser", self)
        if rest:
            known = [name for action in asked._actions for name in action.option_strings]
            asked.error(f"unknown arguments: {' '.join(rest)}{_did_you_mean(rest[0].partition('=')[0], known)}")
        if not hasattr(arguments, "run"):
            asked.print_help()
            self.exit()
        return arguments

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is not among the choices. argparse has no public way to change the text of this error."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        what = "command" if isinstance(action, argparse._SubParsersAction) else "value"
        raise argparse.ArgumentError(
            None if what == "command" else action,
            f"unknown {what}: {value}{_did_you_mean(str(value), choices)} (expected one of {', '.join(choices)})",
        )


def _did_you_mean(given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given[:128], sorted(known), 1, _NEAR_MISS)
    return f"; did you mean {near[0]}?" if near else ""


def _core() -> str:
    """Return the name of the default core, without importing the package `cores`."""
    return "python" if find_spec("headrace_native") is None else "rust"


def parser() -> Parser:
    """Return the parser of all commands with their options. `docs/reference/cli.md` is generated from it."""
    parser = Parser(prog="headrace", description="Solana streams for your users, in one service.")
    parser.add_argument("--version", action="version", version=f"headrace {__version__} (core: {_core()})")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    serve = _command(commands, "serve", "commands:serve", "stream from Solana to clients, and take their orders")
    _add_settings(serve, serves=True)
    serve.add_argument("--record", type=Path, metavar="FILE", help="also write everything received to FILE")
    serve.add_argument(
        "--bank", type=Path, metavar="FILE", help="execute orders on the accounts and programs in FILE, with play money"
    )

    demo = _command(commands, "demo", "commands:demo", "show it with recorded mainnet trades; needs no network")
    _add_settings(demo, serves=True)
    demo.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="times real time, or 'max' (default 1)")
    demo.add_argument("--quiet", action="store_true", help="do not print the trades here")
    demo.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")

    replay = _command(commands, "replay", "commands:replay", "replay a recording: serve it, or print its messages")
    _add_settings(replay, serves=True)
    replay.add_argument("file", type=Path, metavar="FILE", help="a recording")
    replay.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="times real time, or 'max' (default 1)")
    replay.add_argument("--loop", action="store_true", help="start over at the end, under a new epoch")
    replay.add_argument(
        "--print", action="store_true", dest="to_stdout", help="print every message as one line of JSON, serve nothing"
    )
    replay.add_argument("--topic", action="append", metavar="TOPIC", help="with --print: only this topic (repeatable)")

    worker = _command(
        commands, "worker", "commands:worker", "execute the orders that servers take; as many as you like may run"
    )
    _add_settings(worker)

    _add_orders(commands)

    record = _command(commands, "record", "commands:record", "write what the node delivers to a file")
    _add_settings(record)
    record.add_argument("file", type=Path, metavar="FILE", help="where to; one that exists is not overwritten")
    record.add_argument("--append", action="store_true", help="go on with a FILE that exists, or was cut off")
    record.add_argument(
        "--seconds", type=_positive, metavar="S", help="stop after S seconds (default: until interrupted)"
    )

    decode = _command(commands, "decode", "commands:decode", "print a transaction or account readably")
    _add_settings(decode)
    decode.add_argument(
        "inputs",
        nargs="+",
        metavar="FILE|-|SIGNATURE|PUBKEY",
        help="files, '-' for standard input, or what to fetch from the node",
    )
    decode.add_argument("--json", action="store_true", help="one JSON object (one a line for several inputs)")
    decode.add_argument(
        "--messages",
        action="store_true",
        help="print the messages that the stream would publish, one JSON object a line",
    )
    decode.add_argument("--owner", metavar="PROGRAM", help="the input is base64 account data of this program")

    banks = _group(commands, "bank", "make bank files for the local chain")
    clone = _command(banks, "clone", "banking:clone", "write pools and their programs from a node to a bank file")
    clone.add_argument("--pool", action="append", required=True, metavar="ADDRESS", help="a pool (repeatable)")
    clone.add_argument(
        "--mint", action="append", default=[], metavar="MINT", help="the coin of a pump.fun curve (repeatable)"
    )
    clone.add_argument("--url", required=True, metavar="URL", help="the node's HTTP endpoint")
    clone.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to; not a file that exists")

    quote = _command(commands, "quote", "quoting:run", "quote a swap exactly, by the accounts in a file")
    quote.add_argument("--accounts", type=Path, required=True, metavar="FILE", help="the pool's accounts, as JSON")
    quote.add_argument(
        "--venue", required=True, metavar="NAME", help="the pool's program, such as pump or raydium_cpmm"
    )
    quote.add_argument("--input", required=True, metavar="MINT", help="the mint that is given")
    quote.add_argument("--amount", type=_base_units, required=True, metavar="N", help="how much, in base units")
    quote.add_argument("--exact-out", action="store_true", help="N is what is wanted of the other mint")
    quote.add_argument("--json", action="store_true", help="one JSON object")

    listen = _command(
        commands, "listen", "listening:run", "subscribe to topics of a running server and print what comes"
    )
    listen.add_argument("topics", nargs="+", metavar="TOPIC", help="such as trades:pump or slots")
    listen.add_argument("--url", default="ws://127.0.0.1:8080/ws", help="the server's address (default %(default)s)")
    _add_access(listen)
    listen.add_argument("--json", action="store_true", help="print whole frames, one a line")
    listen.add_argument("--count", type=_count, metavar="N", help="stop after N events")
    listen.add_argument(
        "--timeout", type=_positive, metavar="S", help="stop after S seconds; 1 if fewer than N events came, or none"
    )

    _add_history(commands)
    _add_export(commands)

    token = _command(commands, "token", "commands:token", "make a token for trying out, signed with JWT_SECRET")
    _add_settings(token)
    _add_claims(token)

    config = _command(commands, "config", "commands:config", "show the effective settings and where each came from")
    _add_settings(config, serves=True)
    config.add_argument("--json", action="store_true", help="one JSON object: settings and warnings")

    check = _command(
        commands, "check", "commands:check", "go through the checklist of a deployment; 1 if something fails"
    )
    _add_settings(check, serves=True)

    migrate = _command(
        commands, "migrate", "commands:migrate", "bring the databases of orders, inboxes and history up to date"
    )
    _add_settings(migrate, serves=True)

    bench = _command(commands, "bench", "commands:bench", f"measure this machine: {', '.join(BENCHES)}")
    bench.add_argument("what", choices=BENCHES, help="what to measure")
    bench.add_argument("rest", nargs=argparse.REMAINDER, help="options of that measurement (try --help)")

    completion = _command(commands, "completion", "completing:completion", "print what completes commands in a shell")
    completion.add_argument("shell", choices=SHELLS, help="the shell: its start-up file evaluates what is printed")
    return parser


def _command(commands: Any, name: str, run: str, about: str) -> Parser:
    parser = _added(commands, name, about)
    parser.set_defaults(run=run)
    return parser


def _group(commands: Any, name: str, about: str) -> Any:
    """Add a command that only has subcommands. Return the object to which these are added."""
    return _added(commands, name, about).add_subparsers(title="commands", metavar="COMMAND")


def _added(commands: Any, name: str, about: str) -> Parser:
    parser: Parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(parser=parser)
    return parser


def _add_settings(parser: argparse.ArgumentParser, *, serves: bool = False) -> None:
    group = parser.add_argument_group("settings")
    group.add_argument(
        "--config", type=Path, default=Path("headrace.toml"), metavar="FILE", help="settings (default %(default)s)"
    )
    group.add_argument(
        "--env-file", type=Path, default=Path(".env"), metavar="FILE", help="more settings (default %(default)s)"
    )
    if serves:
        group.add_argument("--port", type=_port, metavar="PORT", help="SERVER_PORT for this run; 0 takes a free one")
    else:
        parser.set_defaults(port=None)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        return _positive(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0, or 'max'") from None


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
    return number


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer of at least 1")
    return int(text)


def _base_units(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise argparse.ArgumentTypeError(f"got {text[:50]!r}, expected base units: digits alone, at most 20")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer from 0 to 65535")
    return int(text)


def _add_orders(commands: Any) -> None:
    verbs = _group(commands, "orders", "place, watch, list and cancel orders of a running server")

    place = _verb(verbs, "place", "ordering:place", "place an order; it is on disk when this returns")
    place.later = _add_place

    watch = _verb(verbs, "watch", "ordering:watch", "follow an order to its end; 0 if it was executed, else 1")
    watch.add_argument("order", metavar="ORDER", help="its id")
    watch.add_argument("--from-seq", type=int, default=0, metavar="SEQ", help="only what came after (default 0: all)")

    listing = _verb(verbs, "list", "ordering:list_orders", "list orders, newest first")
    listing.add_argument("--user", metavar="USER", help="only this user's")
    listing.add_argument("--status", metavar="STATUS", help="only those in this status, such as PENDING")
    listing.add_argument("--mint", metavar="MINT", help="only those that give or want this token")
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="how many (default 50)")
    listing.add_argument("--cursor", metavar="CURSOR", help="go on where an earlier list ended")

    cancel = _verb(
        verbs, "cancel", "ordering:cancel", "cancel an order, or ask for it when its transaction may be on its way"
    )
    cancel.add_argument("order", metavar="ORDER", help="its id")

    events = _verb(verbs, "events", "ordering:events", "print the log of an order")
    events.add_argument("order", metavar="ORDER", help="its id")


def _add_history(commands: Any) -> None:
    verbs = _group(commands, "history", "ask a running server for past trades, tokens, candles, gaps and slots")

    trades = _verb(verbs, "trades", "history:trades", "print trades, newest first")
    _add_trades(trades)

    tokens = _verb(verbs, "tokens", "history:tokens", "print tokens, newest first")
    tokens.add_argument("--creator", metavar="KEY", help="only of this creator")

    candles = _verb(verbs, "candles", "history:candles", "print a mint's candles, oldest first")
    _add_candles(candles)

    gaps = _verb(verbs, "gaps", "history:gaps", "print gaps, newest first")
    gaps.add_argument("--feed", metavar="FEED", help="only of this feed")
    slots = _verb(verbs, "slots", "history:slots", "print slots, newest first")
    for listing in (gaps, slots):
        listing.add_argument("--from", type=_count, dest="from_", metavar="SLOT", help="from this slot on")
        listing.add_argument("--to", type=_count, metavar="SLOT", help="up to this slot")
    for listing in (trades, tokens, candles, gaps, slots):
        listing.add_argument("--limit", type=_count, default=100, metavar="N", help="how many (default %(default)s)")


def _add_export(commands: Any) -> None:
    verbs = _group(commands, "export", "write past trades or candles of a running server to a file")
    trades = _verb(verbs, "trades", "exporting:trades", "write trades, newest first")
    _add_trades(trades)
    candles = _verb(verbs, "candles", "exporting:candles", "write a mint's candles, oldest first")
    _add_candles(candles)
    for export in (trades, candles):
        export.add_argument(
            "--format", choices=("csv", "ndjson"), default="csv", help="csv, or ndjson: one JSON object a line"
        )
        export.add_argument("--out", default="-", metavar="FILE", help="the file (default: standard output)")
        export.add_argument("--quiet", action="store_true", help="print no progress")


def _add_trades(parser: Parser) -> None:
    parser.add_argument("--mint", metavar="MINT", help="only of this mint, as the base")
    parser.add_argument("--program", metavar="NAME", help="only of this program, by name or id")
    parser.add_argument("--user", metavar="KEY", help="only of this user")
    _add_times(parser)


def _add_candles(parser: Parser) -> None:
    parser.add_argument("mint", metavar="MINT", help="the mint that is traded")
    parser.add_argument("--quote", metavar="MINT", help="the mint that is paid in (default: wrapped SOL)")
    parser.add_argument("--interval", default="1m", metavar="TIME", help="1s to 1d (default %(default)s)")
    _add_times(parser)


def _add_times(parser: Parser) -> None:
    parser.add_argument("--from", type=_count, dest="from_", metavar="TIME", help="from this time on, in Unix seconds")
    parser.add_argument("--to", type=_count, metavar="TIME", help="before this time, in Unix seconds")


def _add_place(place: Parser) -> None:
    """Add the options of an order, including those of the order types."""
    from headrace.order_types.register import fields_by_type  # slow to import

    place.add_argument("token_in", metavar="TOKEN_IN", help="what is given: SOL, USDC, USDT or a mint")
    place.add_argument("token_out", metavar="TOKEN_OUT", help="what is wanted")
    place.add_argument("amount", metavar="AMOUNT", help="how much of TOKEN_IN, in whole tokens")
    place.add_argument("--base-units", action="store_true", help="AMOUNT is in base units")
    for field in (field for fields in fields_by_type().values() for field in fields if field.option is not None):
        read = int if field.kind == "bps" else str
        place.add_argument(f"--{field.option}", type=read, metavar=field.kind.upper(), help=field.about)
    place.add_argument("--slippage-bps", type=int, metavar="BPS", help="how far below the quote it may be filled")
    place.add_argument("--priority", type=int, metavar="N", help="0 urgent … 9 (default 5)")
    place.add_argument("--expires-in", type=float, metavar="S", help="not begun after S seconds")
    place.add_argument("--user", metavar="USER", help="whose order it is")
    place.add_argument("--key", metavar="KEY", help="idempotency key: asked again, it is the same order")
    place.add_argument("--watch", action="store_true", help="then follow it to its end")


def _verb(verbs: Any, name: str, run: str, about: str) -> Parser:
    parser = _command(verbs, name, run, about)
    parser.add_argument("--url", default=SERVER_URL, help="the server's address (default %(default)s)")
    _add_access(parser)
    parser.add_argument("--json", action="store_true", help="print what the server says, one JSON object a line")
    return parser


def _add_access(parser: argparse.ArgumentParser) -> None:
    """Add `--token-file` and `--ca-file`. There is no option for the token itself: other users can read arguments."""
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"file with the token to show, read again for each connection (default: what {TOKEN_ENV} holds)",
    )
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="certificates (PEM) to trust, in place of this machine's"
    )


def _add_claims(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sub", type=_subject, required=True, metavar="USER", help="whose token it is")
    parser.add_argument(
        "--topics",
        type=_topics,
        metavar="TOPIC,…",
        help="what it may read, such as 'trades:*,slots' (default: no claim)",
    )
    parser.add_argument("--admin", action="store_true", help="it may also publish and look at all connections")
    parser.add_argument(
        "--ttl", type=_ttl_s, default="1h", metavar="TIME", help="90s, 30m, 12h, 7d (default %(default)s)"
    )


def _subject(text: str) -> str:
    if not is_subject(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 1 to {SUBJECT_LENGTH_MAX} printable ASCII characters")
    return text


def _topics(text: str) -> list[str]:
    return [topic.strip() for topic in text.split(",") if topic.strip()]


def _ttl_s(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    ttl_s = int(found[1]) * UNITS_S[found[2]] if found else 0
    if not 0 < ttl_s <= TTL_S_MAX:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a time such as 90s, 30m, 12h or 7d, at most 366d")
    return ttl_s

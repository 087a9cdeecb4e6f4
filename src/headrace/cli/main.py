"""The `headrace` command: parses arguments and calls; it builds nothing itself."""

import argparse
import importlib
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from headrace import __version__, app
from headrace.cli import access, decoding, listening, minting, ordering, recordings, serving
from headrace.config import Config, CoreSettings, WrongSettings, load, render
from headrace.model.errors import ConfigError, HeadraceError
from headrace.runtime.log import configure

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_NO_READER: Final = 141
"""As a shell reports SIGPIPE, which ends other programs when the reader of their output has gone."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process exit code, one of the EXIT_ constants."""
    arguments = parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        status = run(arguments)
        sys.stdout.flush()  # a reader that has gone shows here, not when the interpreter ends
        return status
    except WrongSettings as error:
        return _failed(EXIT_USAGE, *error.errors)
    except ConfigError as error:
        return _failed(EXIT_USAGE, error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere, quietly
        return EXIT_NO_READER
    except HeadraceError as error:
        return _failed(EXIT_FAILED, error)
    except OSError as error:
        return _failed(EXIT_FAILED, f"{error.filename}: {error.strerror}" if error.filename else error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _failed(status: int, *messages: object) -> int:
    for message in messages:
        print(f"headrace: {message}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """All commands with their options; `docs/reference/cli.md` is made from it."""
    parser = argparse.ArgumentParser(prog="headrace", description="Solana streams for your users, in one service.")
    parser.add_argument("--version", action="version", version=f"headrace {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = _command(commands, "serve", _serve, "stream from Solana to clients, and take their orders")
    _add_settings(serve, serves=True)
    serve.add_argument("--record", type=Path, metavar="FILE", help="also write everything received to FILE")

    demo = _command(commands, "demo", _demo, "show it with recorded mainnet trades; needs no network")
    _add_settings(demo, serves=True)
    demo.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="times real time, or 'max' (default 1)")
    demo.add_argument("--quiet", action="store_true", help="do not print the trades here")
    demo.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")

    replay = _command(commands, "replay", _replay, "replay a recording: serve it, or print its messages")
    _add_settings(replay, serves=True)
    replay.add_argument("file", type=Path, metavar="FILE", help="a recording")
    replay.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="times real time, or 'max' (default 1)")
    replay.add_argument("--loop", action="store_true", help="start over at the end, under a new epoch")
    replay.add_argument(
        "--print", action="store_true", dest="to_stdout", help="print every message as one line of JSON, serve nothing"
    )
    replay.add_argument("--topic", action="append", metavar="TOPIC", help="with --print: only this topic (repeatable)")

    worker = _command(commands, "worker", _worker, "execute the orders that servers take; as many as you like may run")
    _add_settings(worker)

    ordering.add_to(commands)

    record = _command(commands, "record", _record, "write what the node delivers to a file")
    _add_settings(record)
    record.add_argument("file", type=Path, metavar="FILE", help="where to; one that exists is not overwritten")
    record.add_argument("--append", action="store_true", help="go on with a FILE that exists, or was cut off")
    record.add_argument(
        "--seconds", type=_positive, metavar="S", help="stop after S seconds (default: until interrupted)"
    )

    decode = _command(commands, "decode", _decode, "print a transaction or account readably")
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

    listen = _command(commands, "listen", _listen, "subscribe to topics of a running server and print what comes")
    listen.add_argument("topics", nargs="+", metavar="TOPIC", help="such as trades:pump or slots")
    listen.add_argument("--url", default="ws://127.0.0.1:8080/ws", help="the server's address (default %(default)s)")
    access.add_options(listen)
    listen.add_argument("--json", action="store_true", help="print whole frames, one a line")
    listen.add_argument("--count", type=_count, metavar="N", help="stop after N events")

    token = _command(commands, "token", _token, "make a token for trying out, signed with JWT_SECRET")
    _add_settings(token)
    minting.add_options(token)

    config = _command(commands, "config", _config, "show the effective settings and where each came from")
    _add_settings(config, serves=True)
    config.add_argument("--json", action="store_true", help="one JSON object: settings and warnings")

    benches = ("decode", "pipeline", "gateway", "filters", "orders", "orders_overhead", "orders_chaos")
    bench = _command(commands, "bench", _bench, f"measure this machine: {', '.join(benches)}")
    bench.add_argument("what", choices=benches, help="what to measure")
    bench.add_argument("rest", nargs=argparse.REMAINDER, help="options of that measurement (try --help)")
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + "."
    )
    parser.set_defaults(run=run)
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


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer from 0 to 65535")
    return int(text)


def _settings(arguments: argparse.Namespace, **unless_set: str) -> Config:
    """Load the settings, and log as they say from here on. `unless_set` count where the environment is silent."""
    for given, default in ((arguments.config, Path("headrace.toml")), (arguments.env_file, Path(".env"))):
        if given != default and not given.is_file():
            raise ConfigError(str(given), "no such file", "a file that exists")
    env = {**unless_set, **os.environ}
    if arguments.port is not None:
        env["SERVER_PORT"] = str(arguments.port)
    config = load(app.SECTIONS, env=env, dotenv=arguments.env_file, toml=arguments.config)
    core = config.section(CoreSettings)
    configure(core.log_level, core.log_format)
    return config


def _serve(arguments: argparse.Namespace) -> int:
    return serving.serve(_settings(arguments), record=arguments.record)


def _worker(arguments: argparse.Namespace) -> int:
    return serving.work(_settings(arguments))


def _demo(arguments: argparse.Namespace) -> int:
    """A port that something else has is no reason for a newcomer to see nothing: then any free one will do."""
    try:
        return _demo_once(arguments)
    except ConfigError as error:
        if error.key != "SERVER_PORT" or arguments.port == 0:
            raise
        print(f"headrace: {error.given} is taken, so the demo takes a free port", file=sys.stderr)
    arguments.port = 0
    return _demo_once(arguments)


def _demo_once(arguments: argparse.Namespace) -> int:
    """With orders on the mock venues and the mock chain, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder:
        files = {"ORDERS_FILE": f"{folder}/orders.db", "MOCK_CHAIN_FILE": f"{folder}/chain.db"}
        config = _settings(arguments, ORDERS_ENABLED="true", **files)
        follow, browser = not arguments.quiet, not arguments.no_browser
        return serving.demo(config, speed=arguments.speed, follow_here=follow, browser=browser)


def _replay(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    if not arguments.to_stdout:
        return serving.replay(config, arguments.file, speed=arguments.speed, loop=arguments.loop)
    return recordings.print_replay(
        config, arguments.file, speed=arguments.speed, topics=arguments.topic, out=sys.stdout.buffer
    )


def _record(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    return recordings.record(config, arguments.file, seconds=arguments.seconds, append=arguments.append)


def _decode(arguments: argparse.Namespace) -> int:
    return decoding.decode(
        _settings(arguments),
        arguments.inputs,
        owner=arguments.owner,
        as_json=arguments.json,
        messages=arguments.messages,
    )


def _listen(arguments: argparse.Namespace) -> int:
    shown = access.Access.of(arguments)
    return listening.listen(arguments.url, arguments.topics, shown, whole_frames=arguments.json, count=arguments.count)


def _token(arguments: argparse.Namespace) -> int:
    return minting.mint(_settings(arguments), arguments)


def _config(arguments: argparse.Namespace) -> int:
    print(render(_settings(arguments), as_json=arguments.json))
    return EXIT_DONE


def _bench(arguments: argparse.Namespace) -> int:
    bench = importlib.import_module(f"headrace.bench.{arguments.what}")
    result: int = bench.main(arguments.rest)
    return result

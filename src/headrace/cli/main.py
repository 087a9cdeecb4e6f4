"""The `headrace` command: parses arguments and calls; it builds nothing itself."""

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace import __version__, app
from headrace.cli import listening, recordings, serving
from headrace.config import Config, WrongSettings, load, render
from headrace.ingest.inspect import inspect
from headrace.ingest.readable import render_text
from headrace.model.errors import BadInputError, ConfigError, HeadraceError
from headrace.model.keys import is_key
from headrace.runtime.clock import SystemClock

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process exit code: 0 done, 1 failed, 2 wrong usage or configuration."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except WrongSettings as error:
        for each in error.errors:
            print(f"headrace: {each}", file=sys.stderr)
        return EXIT_USAGE
    except ConfigError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (HeadraceError, OSError) as error:
        print(f"headrace: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headrace", description="Solana streams for your users, in one service.")
    parser.add_argument("--version", action="version", version=f"headrace {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = _command(commands, "serve", _serve, "stream from Solana and serve clients")
    _add_settings(serve)
    serve.add_argument("--record", type=Path, metavar="FILE", help="also write everything received to FILE")

    demo = _command(commands, "demo", _demo, "replay recorded mainnet trades through everything; needs no network")
    _add_settings(demo)
    demo.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="times real time, or 'max' (default 1)")
    demo.add_argument("--quiet", action="store_true", help="do not print the trades here")
    demo.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")

    replay = _command(commands, "replay", _replay, "replay a recording: serve it, or print its messages")
    _add_settings(replay)
    replay.add_argument("file", type=Path, metavar="FILE")
    replay.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="times real time, or 'max' (default 1)")
    replay.add_argument("--loop", action="store_true", help="start over at the end, under a new epoch")
    replay.add_argument(
        "--print", action="store_true", dest="to_stdout", help="print every message as one line of JSON, serve nothing"
    )
    replay.add_argument("--topic", action="append", metavar="TOPIC", help="with --print: only this topic (repeatable)")

    worker = _command(commands, "worker", _worker, "execute orders, and serve nobody; as many as you like may run")
    _add_settings(worker)

    record = _command(commands, "record", _record, "write what the configured sources deliver to a file")
    _add_settings(record)
    record.add_argument("file", type=Path, metavar="FILE")
    record.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds (default: until interrupted)")

    decode = _command(commands, "decode", _decode, "print a transaction or account readably")
    _add_settings(decode)
    decode.add_argument(
        "input",
        metavar="FILE|-|SIGNATURE|PUBKEY",
        help="a file, '-' for standard input, or what to fetch from the node",
    )
    decode.add_argument("--json", action="store_true", help="one JSON object (one a line for several inputs)")
    decode.add_argument("--owner", metavar="PROGRAM", help="the input is base64 account data of this program")

    listen = _command(commands, "listen", _listen, "subscribe to topics of a running server and print what comes")
    listen.add_argument("topics", nargs="+", metavar="TOPIC")
    listen.add_argument("--url", default="ws://127.0.0.1:8080/ws", help="default %(default)s")
    listen.add_argument("--json", action="store_true", help="print whole frames, one a line")
    listen.add_argument("--count", type=int, metavar="N", help="stop after N events")

    config = _command(commands, "config", _config, "show the effective settings and where each came from")
    _add_settings(config)
    config.add_argument("--json", action="store_true")

    bench = _command(commands, "bench", _bench, "measure this machine: decode, pipeline, gateway or orders_chaos")
    bench.add_argument("what", choices=("decode", "pipeline", "gateway", "orders_chaos"))
    bench.add_argument("rest", nargs=argparse.REMAINDER, help="options of that measurement (try --help)")
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + "."
    )
    parser.set_defaults(run=run)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings")
    group.add_argument("--config", type=Path, default=Path("headrace.toml"), metavar="FILE", help="default %(default)s")
    group.add_argument("--env-file", type=Path, default=Path(".env"), metavar="FILE", help="default %(default)s")
    group.add_argument("--port", metavar="PORT", help="SERVER_PORT for this run; 0 takes a free one")


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    speed = float(text)
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, expected a number above 0, or 'max'")
    return speed


def _settings(arguments: argparse.Namespace) -> Config:
    for given, default in ((arguments.config, Path("headrace.toml")), (arguments.env_file, Path(".env"))):
        if given != default and not given.is_file():
            raise ConfigError(str(given), "no such file", "a file that exists")
    env = dict(os.environ)
    if arguments.port is not None:
        env["SERVER_PORT"] = arguments.port
    return load(app.SECTIONS, env=env, dotenv=arguments.env_file, toml=arguments.config)


def _serve(arguments: argparse.Namespace) -> int:
    return serving.serve(_settings(arguments), record=arguments.record)


def _worker(arguments: argparse.Namespace) -> int:
    return serving.work(_settings(arguments))


def _demo(arguments: argparse.Namespace) -> int:
    return serving.demo(
        _settings(arguments), speed=arguments.speed, follow_here=not arguments.quiet, browser=not arguments.no_browser
    )


def _replay(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    if not arguments.to_stdout:
        return serving.replay(config, arguments.file, speed=arguments.speed, loop=arguments.loop)
    return recordings.print_replay(
        config, arguments.file, speed=arguments.speed, topics=arguments.topic, out=sys.stdout.buffer
    )


def _record(arguments: argparse.Namespace) -> int:
    return recordings.record(_settings(arguments), arguments.file, seconds=arguments.seconds)


def _decode(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    name: str = arguments.input
    if name == "-":
        text = sys.stdin.buffer.read()
    elif Path(name).is_file():
        text = Path(name).read_bytes()
    elif app.is_on_chain(name):
        text = asyncio.run(_fetch(config, name))
    else:
        text = name.encode()
    result = inspect(text, app.load_programs(config), owner=arguments.owner)
    if arguments.json:
        for each in result if isinstance(result, list) else [result]:
            print(msgspec.json.encode(each).decode())
    else:
        print(render_text(result))
    return EXIT_DONE


async def _fetch(config: Config, name: str) -> bytes:
    """The transaction or account of this name, as the node's own JSON. Raises BadInputError when there is none."""
    rpc = app.open_rpc(config, SystemClock())
    try:
        if is_key(name):
            found = await rpc.call("getAccountInfo", [name, {"encoding": "base64"}])
            missing = found["value"] is None
        else:
            options = {"encoding": "base64", "maxSupportedTransactionVersion": 1, "commitment": "confirmed"}
            found = await rpc.call("getTransaction", [name, options])
            missing = found is None
    finally:
        await rpc.aclose()
    if missing:
        raise BadInputError("not_found", f"the node knows no {'account' if is_key(name) else 'transaction'} {name}")
    return msgspec.json.encode({"result": found})


def _listen(arguments: argparse.Namespace) -> int:
    return listening.listen(arguments.url, arguments.topics, whole_frames=arguments.json, count=arguments.count)


def _config(arguments: argparse.Namespace) -> int:
    print(render(_settings(arguments), as_json=arguments.json))
    return EXIT_DONE


def _bench(arguments: argparse.Namespace) -> int:
    bench = importlib.import_module(f"headrace.bench.{arguments.what}")
    result: int = bench.main(arguments.rest)
    return result

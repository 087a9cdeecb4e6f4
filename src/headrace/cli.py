"""The `headrace` command: parses arguments and calls; it builds nothing itself."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from headrace import __version__
from headrace.model.errors import BadInputError, ConfigError, HeadraceError

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process exit code: 0 done, 1 failed, 2 wrong usage or configuration."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except ConfigError as error:
        print(f"headrace: configuration: {error}", file=sys.stderr)
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

    replay = _command(commands, "replay", _replay, "replay a recording: serve it, or print its messages")
    _add_settings(replay)
    replay.add_argument("file", type=Path, metavar="FILE")
    replay.add_argument("--speed", type=_speed, default=1.0, metavar="N", help="times real time, or 'max' (default 1)")
    replay.add_argument("--loop", action="store_true", help="start over at the end, under a new epoch")
    replay.add_argument(
        "--print", action="store_true", dest="to_stdout", help="print every message as one line of JSON, serve nothing"
    )
    replay.add_argument("--topic", action="append", metavar="TOPIC", help="with --print: only this topic (repeatable)")

    record = _command(commands, "record", _record, "write what the configured sources deliver to a file")
    _add_settings(record)
    record.add_argument("file", type=Path, metavar="FILE")
    record.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds (default: until interrupted)")

    decode = _command(commands, "decode", _decode, "print a transaction or account readably")
    _add_settings(decode)
    decode.add_argument(
        "input", metavar="FILE|-|SIGNATURE|PUBKEY", help="a file, '-' for standard input, or what to fetch from the node"
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

    bench = _command(commands, "bench", _bench, "measure this machine: decode, pipeline or gateway")
    bench.add_argument("what", choices=("decode", "pipeline", "gateway"))
    bench.add_argument("rest", nargs=argparse.REMAINDER, help="options of that measurement (try --help)")
    return parser

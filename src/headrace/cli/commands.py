"""The commands that use the settings of a server. Each loads the settings and calls its function with them."""

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

from headrace.cli import checking, decoding, minting, recordings, serving
from headrace.config import Config, CoreSettings, WrongSettings, load, render
from headrace.model.errors import ConfigError
from headrace.runtime.log import configure
from headrace.service.preflight import find_errors
from headrace.service.settings import REGISTERS, SECTIONS


def _settings(arguments: argparse.Namespace, **unless_set: str) -> Config:
    """Load the settings, and configure logging with them. `unless_set` has values for variables that are not set."""
    for given, default in ((arguments.config, Path("headrace.toml")), (arguments.env_file, Path(".env"))):
        if given != default and not given.is_file():
            raise ConfigError(str(given), "no such file", "a file that exists")
    env = {**unless_set, **os.environ}
    if arguments.port is not None:
        env["SERVER_PORT"] = str(arguments.port)
    if getattr(arguments, "bank", None) is not None:
        env |= {"BANK_FILE": str(arguments.bank), "ORDER_CHAIN": "local", "ORDER_VENUES": "pools"}
    config = load(SECTIONS, env=env, dotenv=arguments.env_file, toml=arguments.config)
    REGISTERS.check(config)
    core = config.section(CoreSettings)
    configure(core.log_level, core.log_format)
    return config


def _refuse_wrong(config: Config) -> None:
    """Raise WrongSettings with everything that a server would refuse at its start."""
    if errors := find_errors(config, REGISTERS):
        raise WrongSettings(tuple(errors))


def serve(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    _refuse_wrong(config)
    return serving.serve(config, record=arguments.record)


def worker(arguments: argparse.Namespace) -> int:
    return serving.work(_settings(arguments))


def demo(arguments: argparse.Namespace) -> int:
    """Run the demo. If another program uses the usual port, use a free one, so that the demo starts all the same."""
    try:
        return _demo_once(arguments)
    except ConfigError as error:
        if error.key != "SERVER_PORT" or arguments.port == 0:
            raise
        print(f"headrace: {error.given} is taken, so the demo takes a free port", file=sys.stderr)
    arguments.port = 0
    return _demo_once(arguments)


def _demo_once(arguments: argparse.Namespace) -> int:
    """Run the demo with orders on the mock venues and the mock chain, in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="headrace-demo-") as folder:
        files = {"ORDERS_FILE": f"{folder}/orders.db", "MOCK_CHAIN_FILE": f"{folder}/chain.db"}
        config = _settings(arguments, ORDERS_ENABLED="true", **files)
        follow, browser = not arguments.quiet, not arguments.no_browser
        return serving.demo(config, speed=arguments.speed, follow_here=follow, browser=browser)


def replay(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    if not arguments.to_stdout:
        return serving.replay(config, arguments.file, speed=arguments.speed, loop=arguments.loop)
    return recordings.print_replay(
        config, arguments.file, speed=arguments.speed, topics=arguments.topic, out=sys.stdout.buffer
    )


def record(arguments: argparse.Namespace) -> int:
    config = _settings(arguments)
    return recordings.record(config, arguments.file, seconds=arguments.seconds, append=arguments.append)


def decode(arguments: argparse.Namespace) -> int:
    return decoding.decode(
        _settings(arguments),
        arguments.inputs,
        owner=arguments.owner,
        as_json=arguments.json,
        messages=arguments.messages,
    )


def token(arguments: argparse.Namespace) -> int:
    return minting.mint(_settings(arguments), arguments)


def config(arguments: argparse.Namespace) -> int:
    """Print the settings, and then what a server would refuse in them: the origin of a wrong one is among them."""
    config = _settings(arguments)
    print(render(config, as_json=arguments.json), flush=True)
    _refuse_wrong(config)
    return 0


def migrate(arguments: argparse.Namespace) -> int:
    return serving.migrate(_settings(arguments))


def check(arguments: argparse.Namespace) -> int:
    return checking.check(_settings(arguments), REGISTERS)


def bench(arguments: argparse.Namespace) -> int:
    bench = importlib.import_module(f"headrace.bench.{arguments.what}")
    result: int = bench.main(arguments.rest)
    return result

"""Settings change while the process runs: all or nothing, live ones only, told to who asked, undone if refused."""

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from headrace.config import Change, Config, WrongSettings, load
from headrace.model.errors import ConfigError, TransientError
from headrace.runtime.clock import ManualClock
from headrace.runtime.supervise import Supervisor
from headrace.runtime.watch import SIGHUP, watch
from tests.config.sections import SECTIONS, Gate, Node
from tests.config.test_load import Pair


class Running:
    """A config with its file, and what its listeners heard."""

    def __init__(self, folder: Path, toml: str = "[gate]\nclients_max = 1\n") -> None:
        self.file = folder / "headrace.toml"
        self.dotenv = folder / ".env"
        self.env: dict[str, str] = {}
        self.file.write_text(toml)
        self.config: Config = load(SECTIONS, env=self.env, dotenv=self.dotenv, toml=self.file)
        self.heard: list[tuple[str, Any, Any]] = []

    def listen(self, name: str, struct: Any, field: str, refuse: Exception | None = None) -> None:
        def callback(old: Any, new: Any) -> None:
            if refuse is not None:
                raise refuse
            self.heard.append((name, getattr(old, field), getattr(new, field)))

        self.config.on_change(struct, callback)

    def state(self) -> tuple[Any, ...]:
        rows = tuple((row.key, str(row.value), row.origin) for row in self.config.describe())
        return self.config.section(Gate), self.config.section(Node), rows

    def write(self, toml: str) -> Change:
        self.file.write_text(toml)
        return self.config.reload()


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path)


def test_live_settings_change_and_are_told(running: Running) -> None:
    running.listen("gate", Gate, "clients_max")
    running.listen("node", Node, "label")
    change = running.write("[gate]\nclients_max = 2\n")
    assert change == Change(("gate.clients_max",), (), (), ())
    assert running.config.section(Gate).clients_max == 2
    assert running.heard == [("gate", 1, 2)]  # the other section did not change
    assert running.write("[gate]\n\nclients_max = 2\n") == Change()
    assert str(running.config.origins["gate.clients_max"]) == "headrace.toml:3"


def test_settings_that_need_a_restart_are_named_and_do_not_hinder_the_others(running: Running) -> None:
    running.listen("gate", Gate, "port")
    change = running.write("[gate]\nport = 1\nclients_max = 2\n")
    assert (change.applied, change.needs_restart) == (("gate.clients_max",), ("gate.port",))
    assert (running.config.section(Gate).port, running.config.section(Gate).clients_max) == (8080, 2)
    assert str(running.config.origins["gate.port"]) == "default"
    assert running.config.reload().needs_restart == ("gate.port",)  # still waiting
    assert running.write("[gate]\nclients_max = 2\n") == Change()


@pytest.mark.parametrize(
    "toml",
    [
        "[gate]\nclients_max = 3\nrate = 7\n",
        "[gate]\nclients_max = 3\nx = 1\n",
        "[gate\n",
        "[gate]\nclients_max = 'x'\n",
    ],
)
def test_an_error_anywhere_changes_nothing(running: Running, toml: str) -> None:
    running.listen("gate", Gate, "clients_max")
    before = running.state()
    change = running.write(toml)
    assert len(change.errors) == 1
    assert (change.applied, change.needs_restart) == ((), ())
    assert running.state() == before
    assert running.heard == []
    assert running.write("[gate]\nclients_max = 3\n").applied == ("gate.clients_max",)


def test_a_vanished_file_keeps_the_settings(running: Running) -> None:
    before = running.state()
    running.file.unlink()
    assert [str(error) for error in running.config.reload().errors] == [
        "headrace.toml: got no file, though there was one, expected the file, or a restart"
    ]
    assert running.state() == before
    running.file.mkdir()
    (error,) = running.config.reload().errors
    assert str(error).startswith("headrace.toml: got something that is not a file")
    running.file.rmdir()
    assert running.write("[gate]\nclients_max = 5\n").applied == ("gate.clients_max",)


def test_a_file_that_appears_is_read(running: Running) -> None:
    running.dotenv.write_text("NODE_LABEL=new\n")
    assert running.config.reload().applied == ("node.label",)
    assert running.config.paths == (running.dotenv, running.file)


def test_the_environment_still_comes_first(running: Running) -> None:
    running.env["CLIENTS_MAX"] = "9"
    assert running.config.reload().applied == ("gate.clients_max",)
    assert running.write("[gate]\nclients_max = 2\n") == Change()
    assert running.config.section(Gate).clients_max == 9


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (ConfigError("gate.rate", "1.0", "less"), "gate.rate: got 1.0, expected less"),
        (
            TransientError("wss://h/?token=x away"),
            "node: got a refusal (wss://h/?token=*** away), expected a change that can be made live",
        ),
        (ValueError("no"), "node: got a refusal (no), expected a change that can be made live"),
    ],
)
def test_a_listener_that_refuses_rolls_all_back(running: Running, refusal: Exception, text: str) -> None:
    running.listen("one", Gate, "clients_max")
    running.listen("two", Gate, "rate")
    running.listen("three", Node, "label", refusal)
    running.listen("never", Node, "label")
    before = running.state()
    change = running.write("[gate]\nclients_max = 2\nrate = 1.0\n[node]\nlabel = 'x'\n")
    assert [str(error) for error in change.errors] == [text]
    assert change.applied == ()
    assert running.heard == [("one", 1, 2), ("two", 0.5, 1.0), ("two", 1.0, 0.5), ("one", 2, 1)]
    assert running.state() == before


def test_a_listener_with_a_defect_rolls_back_and_is_raised(running: Running) -> None:
    running.listen("one", Gate, "clients_max")
    running.listen("broken", Gate, "no_such_field")
    before = running.state()
    with pytest.raises(AttributeError):
        running.write("[gate]\nclients_max = 2\n")
    assert running.heard == [("one", 1, 2), ("one", 2, 1)]
    assert running.state() == before


def test_a_listener_can_stop(running: Running) -> None:
    stop = running.config.on_change(Gate, lambda _old, _new: pytest.fail("stopped"))
    stop()
    stop()
    assert running.write("[gate]\nclients_max = 2\n").applied == ("gate.clients_max",)


def test_what_fits_only_together_with_a_restart_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text("[pair]\nlow = 1\nhigh = 2\n")
    config = load({"pair": Pair}, env={}, dotenv=None, toml=file)
    file.write_text("[pair]\nlow = 5\n")
    assert [str(error) for error in config.reload().errors] == [
        "pair: got low 5 is above high 2, expected settings that go together"
    ]
    assert config.section(Pair) == Pair(1, 2)
    file.write_text("[pair]\nlow = 5\nhigh = 6\n")
    assert config.reload().applied == ("pair.low", "pair.high")


def test_warnings_are_those_of_the_last_reload(running: Running) -> None:
    running.env["CLIENTS_MAXX"] = "1"
    assert len(running.config.reload().warnings) == 1
    assert len(running.config.warnings) == 1
    del running.env["CLIENTS_MAXX"]
    assert running.config.reload().warnings == ()


def test_wrong_settings_at_start_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(WrongSettings):
        Running(tmp_path, "[gate]\nport = 0\n")


async def test_a_real_file_and_a_real_signal_change_a_running_process(tmp_path: Path) -> None:
    """The whole way, as app.py does it: the watch speaks, inputs are read in a thread, listeners hear."""
    running = await asyncio.to_thread(Running, tmp_path)
    clock, changes, done = ManualClock(), asyncio.Queue[tuple[frozenset[str], Change]](), asyncio.Event()
    running.listen("gate", Gate, "clients_max")

    async def follow() -> None:
        async with aclosing(watch(running.config.paths, clock)) as notices:
            async for notice in notices:
                inputs = await asyncio.to_thread(running.config.read)
                changes.put_nowait((notice, running.config.reload(inputs)))

    async def next_change() -> tuple[frozenset[str], Change]:
        async with asyncio.timeout(20):
            while changes.empty():
                await clock.advance(1)
                await asyncio.sleep(0.001)
        return changes.get_nowait()

    async def scenario() -> None:
        while not clock.sleepers:  # noqa: ASYNC110  (the first look happens in a thread)
            await asyncio.sleep(0.001)
        assert signal.getsignal(signal.SIGHUP) is not before

        def replace(text: str) -> None:
            new = running.file.with_suffix(".new")
            new.write_text(text)
            new.rename(running.file)

        replace("[gate]\nclients_max = 20\n")
        notice, change = await next_change()
        assert notice == frozenset({str(running.file)})
        assert change.applied == ("gate.clients_max",)

        os.kill(os.getpid(), signal.SIGHUP)
        notice, change = await next_change()
        assert notice == frozenset({SIGHUP})
        assert change == Change()

        await asyncio.to_thread(running.file.unlink)
        _, change = await next_change()
        assert len(change.errors) == 1
        assert running.config.section(Gate).clients_max == 20

        replace("[gate]\nclients_max = 30\n")
        _, change = await next_change()
        assert change.applied == ("gate.clients_max",)
        assert running.heard == [("gate", 1, 20), ("gate", 20, 30)]
        done.set()

    before = signal.getsignal(signal.SIGHUP)
    async with Supervisor(clock) as supervisor:
        supervisor.start("config", "follow", follow)
        supervisor.start("test", "scenario", scenario)
        await done.wait()
        supervisor.cancel()
    assert signal.getsignal(signal.SIGHUP) is before

"""What holds for every test: Headrace never blocks the loop, no task outlives its test, logs are the real ones, and a
busy machine is no failure."""

import asyncio
import inspect
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest
from blockbuster import blockbuster_ctx

from headrace.runtime import log

for profile, examples in (("quick", 25), ("thorough", 100)):
    hypothesis.settings.register_profile(
        profile,
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
        max_examples=examples,
    )
hypothesis.settings.load_profile("quick")

GRPC = {
    "headrace/sources/yellowstone/grpcio.py": {"open", "run", "receive", "send", "close"},
    "headrace/testing/yellowstone.py": {
        "__init__", "__aenter__", "__aexit__", "_subscribe", "_admit", "_answer", "_write", "_read",
    },
}  # fmt: skip
ON_LOOP = ("no_blocking_calls", "no_leaked_tasks")


def pytest_configure() -> None:
    """Let processes that tests start be interrupted: a shell lets what runs in its background ignore SIGINT.

    A function between fork and exec would do it too, but is not safe beside the threads of gRPC.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every asyncio test the two fixtures, set up first and so checked last."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames[:0] = [name for name in ON_LOOP if name not in item.fixturenames]


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name bytes by their length: frames are masked at random, and every worker must give a test the same name."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what did not run: each reason once, and how to run the long tests."""
    reporter = terminalreporter
    skipped = Counter(
        report.longrepr[2] for report in reporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)
    )
    for reason, times in sorted(skipped.items()):
        reporter.write_line(f"left out {times} × {reason.removeprefix('Skipped: ')}")
    if reporter.config.option.markexpr == "not long":
        reporter.write_line("left out: tests marked long; make test-long runs them")
    if hypothesis.settings.get_current_profile_name() == "quick":
        reporter.write_line("left out: three of four examples of Hypothesis; make test-long tries all")


@pytest.fixture(scope="session", autouse=True)
def logging_as_in_production() -> None:
    """All levels, through the real processors, to the stderr that pytest captures."""
    log.configure("debug", "console")


@pytest.fixture
def no_blocking_calls() -> Iterator[None]:
    """A blocking call made by Headrace's code on the event loop raises BlockingError; the test's own may block.

    Allowed are the imports of lazily loaded adapters, lines that go to stderr, and the look for a password file when a
    database connection is opened. Supervise is at the bottom of every task's stack, also of the tests' own tasks, so
    it does not count as the caller.
    """
    with blockbuster_ctx(["headrace"], excluded_modules=["headrace.runtime.supervise"]) as blockbuster:
        for function in blockbuster.functions.values():
            function.can_block_in("<frozen importlib._bootstrap>", {"_find_and_load"})
            function.can_block_in("headrace/runtime/log.py", {"write"})
            function.can_block_in("asyncpg/connect_utils.py", {"_parse_connect_dsn_and_args"})
            for file, of_grpc in GRPC.items():  # its thread and the loop share a lock for a moment
                function.can_block_in(file, of_grpc)
            function.can_block_in("coverage/collector.py", {"lock_data"})  # for a moment, where threads begin new files
        yield


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Tasks that a test started have ended when it ends."""
    before = asyncio.all_tasks()
    yield
    for _ in range(5):  # let tasks that were just cancelled end
        await asyncio.sleep(0)
    leaked = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not leaked, f"tasks outlived the test: {sorted(task.get_name() for task in leaked)}"

"""The guards of conftest.py do guard."""

import os
from pathlib import Path

import pytest
from blockbuster import BlockingError

from headrace.config import CORE_SECTIONS, load


async def test_blocking_in_headrace_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text("")
    with pytest.raises(BlockingError):
        load(CORE_SECTIONS, env={}, dotenv=None, toml=file)


async def test_blocking_in_a_test_is_fine(tmp_path: Path) -> None:
    os.stat(tmp_path)  # noqa: PTH116


pytest_plugins = ["pytester"]


def test_a_leaked_task_fails_its_test(pytester: pytest.Pytester) -> None:
    conftest = Path(__file__).with_name("conftest.py").read_text()
    pytester.makeconftest(conftest)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function")
    pytester.makepyfile(
        """
        import asyncio

        async def test_leaks():
            global task
            task = asyncio.get_running_loop().create_task(asyncio.sleep(60), name="forgotten")

        async def test_clean():
            await asyncio.gather(asyncio.sleep(0))
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=2, errors=1)
    outcome.stdout.fnmatch_lines(["*tasks outlived the test*forgotten*"])

"""Test the choice of a core, and the error for a core that can't be opened."""

import tomllib
from pathlib import Path

import pytest

from headrace.cores import AUTO, CORES, installed, open_core
from headrace.cores.rust import VERSION
from headrace.decoders.registry import Programs
from headrace.ingest.pipeline import Pipeline
from headrace.model.errors import ConfigError
from headrace.runtime.clock import ManualClock
from headrace.runtime.metrics import Metrics

ROOT = Path(__file__).parents[2]
NO_PROGRAMS = Programs(())


def test_auto_opens_the_fastest_that_is_installed() -> None:
    assert open_core(AUTO, NO_PROGRAMS).name == installed()[-1]
    assert set(installed()) <= set(CORES)


def test_python_is_always_installed() -> None:
    assert open_core("python", NO_PROGRAMS).name == installed()[0] == "python"


def test_an_unknown_core_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="auto, python, rust"):
        open_core("go", NO_PROGRAMS)


@pytest.mark.skipif("rust" in installed(), reason="headrace-native is installed")
def test_a_core_that_is_not_installed_is_refused_with_the_way_to_it() -> None:
    with pytest.raises(ConfigError, match="make fast"):
        open_core("rust", NO_PROGRAMS)


def test_the_metric_names_the_core() -> None:
    metrics = Metrics()
    Pipeline(NO_PROGRAMS, ManualClock(), metrics)
    assert b'headrace_ingest_core{core="python"} 1.0' in metrics.render()


def test_the_crate_the_wheel_and_the_extra_have_one_version() -> None:
    crate = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["package"]
    wheel = tomllib.loads((ROOT / "native" / "pyproject.toml").read_text())["project"]
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["fast"]
    assert {crate["version"], wheel["version"]} == {VERSION}
    assert extra == [f"{crate['name']}=={VERSION}"]

"""Each lock is whole: all that the project and the pinned packages ask for is pinned by hash, in a fitting version."""

import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.install.locks import DEVELOPMENT, PROJECT, ROOT, RUNTIME, read, requirements_of, requirements_of_project

LOCKS = [
    pytest.param(RUNTIME, ("build",), id="requirements.lock"),
    pytest.param(DEVELOPMENT, ("dev", "docs"), id="requirements-dev.lock"),
]


@pytest.mark.parametrize(("lock", "groups"), LOCKS)
def test_lock_is_closed_under_the_requirements_of_what_it_pins(lock: Path, groups: tuple[str, ...]) -> None:
    pins = {pin.name: pin for pin in read(lock) if pin.applies}
    missing, wrong, seen = set(), set(), set()
    queue = requirements_of_project(*groups)
    while queue:
        asked = queue.pop()
        name = canonicalize_name(asked.name)
        if (name, frozenset(asked.extras)) in seen or not (
            asked.marker is None or asked.marker.evaluate({"extra": ""})
        ):
            continue
        if name not in pins:
            missing.add(name)
            continue
        if not asked.specifier.contains(pins[name].version, prereleases=True):
            wrong.add(f"{asked} against {pins[name].version}")
        seen.add((name, frozenset(asked.extras)))
        for line in requirements_of(name):
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *asked.extras}):
                requirement.marker = None
                queue.append(requirement)
    assert (missing, wrong) == (set(), set())
    assert {name for name, _ in seen} == set(pins), "pinned, and nothing asks for it"


def test_runtime_lock_is_a_part_of_the_development_lock() -> None:
    assert set(read(RUNTIME)) < set(read(DEVELOPMENT))


@pytest.mark.parametrize("lock", [RUNTIME, DEVELOPMENT], ids=lambda lock: lock.name)
def test_lock_names_no_host(lock: Path) -> None:
    assert "://" not in lock.read_text()


def test_lock_of_the_node_tools_has_hashes_and_names_no_host() -> None:
    packages = json.loads((ROOT / "tests/outside/package-lock.json").read_text())["packages"]
    packages.pop("")
    assert all("integrity" in entry and "resolved" not in entry for entry in packages.values())


def test_library_whose_internals_are_used_has_an_upper_bound() -> None:
    bounds = {asked.name: asked.specifier for asked in requirements_of_project()}
    assert any(specifier.operator == "<" for specifier in bounds["websockets"])


def test_build_requirement_is_pinned() -> None:
    pins = {pin.name: pin.version for pin in read(RUNTIME)}
    for asked in map(Requirement, PROJECT["build-system"]["requires"]):
        assert asked.specifier.contains(pins[asked.name])

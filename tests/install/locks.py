"""Read the locks, and make small wheels with the names and requirements of the packages that they pin."""

import hashlib
import re
import tomllib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
RUNTIME: Final = ROOT / "requirements.lock"
DEVELOPMENT: Final = ROOT / "requirements-dev.lock"
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())

_LINE: Final = re.compile(
    r"^(?P<requirement>[^#\s][^\n\\]*) \\\n(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)", re.M
)


@dataclass(frozen=True, slots=True)
class Pin:
    """One entry of a lock: `name==version ; marker` and the hashes of its files."""

    requirement: Requirement
    hashes: frozenset[str]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        (specifier,) = self.requirement.specifier
        return specifier.version

    @property
    def applies(self) -> bool:
        """Return whether the marker fits the running Python and platform."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def read(lock: Path) -> list[Pin]:
    """Return the pins of a lock. Raise ValueError for text that is no pin."""
    text = lock.read_text()
    if rest := _LINE.sub("", text).strip():
        raise ValueError(f"{lock.name}: no pin with hashes: {rest[:200]}")
    return [
        Pin(Requirement(m["requirement"]), frozenset(re.findall(r"[0-9a-f]{64}", m["hashes"])))
        for m in _LINE.finditer(text)
    ]


def requirements_of_project(*groups: str) -> list[Requirement]:
    """Return what pyproject.toml asks for: the dependencies of the project and those of the groups."""
    asked = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    for group in groups:
        for line in PROJECT["dependency-groups"][group]:
            asked += [Requirement(line)] if isinstance(line, str) else requirements_of_project(line["include-group"])
    return asked


def requirements_of(name: str) -> list[str]:
    """Return the requirements of an installed package, extras and markers included."""
    return metadata.distribution(name).requires or []


def make_wheel(folder: Path, name: str, version: str, requires: Iterable[str]) -> Path:
    """Write a wheel that holds its metadata only."""
    stem = f"{name.replace('-', '_')}-{version}"
    extras = sorted({extra for line in requires for extra in re.findall(r"extra == [\"']([\w.-]+)[\"']", line)})
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {line}" for line in requires]
    files = {
        "METADATA": "\n".join(lines) + "\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"{stem}.dist-info/{file}", text)
    return wheel


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

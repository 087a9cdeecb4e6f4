"""Every door with what it was made for, what was once found, and that spoilt at random; atheris goes on from there."""

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.seeds import CORPUS, SEEDS, kept, seeds
from tests.fuzz.targets import TARGETS

SPOILT = 300
ATHERIS = importlib.util.find_spec("atheris") is not None


def spoil(chance: random.Random, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """`data` with a few changes: bytes turned, cut out, doubled, or put in from another input."""
    spoilt = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(spoilt) + 1)
        match chance.randrange(5):
            case 0 if at < len(spoilt):
                spoilt[at] ^= 1 << chance.randrange(8)
            case 1:
                del spoilt[at : at + chance.randint(1, 64)]
            case 2:
                spoilt[at:at] = chance.randbytes(chance.randint(1, 8))
            case 3:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                spoilt[at:at] = other[start : start + chance.randint(1, 64)]
            case _:
                spoilt[at:at] = chance.choice(
                    [b"null", b"-1", b"18446744073709551616", b"[]", b'""', b"\xff", b"\r\n", b"\0" * 8]
                )
    return bytes(spoilt)


def test_every_target_has_seeds_and_every_folder_is_of_a_target() -> None:
    assert set(SEEDS) == set(TARGETS)
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_kept_inputs_are_no_defect(name: str) -> None:
    assert seeds(name)
    for data in seeds(name):
        TARGETS[name](data)
    TARGETS[name](b"")


@pytest.mark.parametrize("name", TARGETS)
def test_spoilt_inputs_are_no_defect(name: str) -> None:
    chance, begin = random.Random(name), seeds(name)
    for _ in range(SPOILT):
        data = spoil(chance, chance.choice(begin), begin)
        try:
            TARGETS[name](data)
        except BaseException:
            print(f"the input, for tests/data/fuzz/{name}: {data!r}")
            raise


@pytest.mark.skipif(not ATHERIS, reason="atheris is not installed (Linux on x86-64 alone has it)")
@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_atheris_finds_nothing_in_a_moment(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", name, "2"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(root)}, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "stat::number_of_executed_units" in done.stderr


def test_kept_inputs_are_small() -> None:
    assert sum(len(data) for name in TARGETS for data in kept(name)) < 1_000_000

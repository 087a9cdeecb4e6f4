"""Without the packages of the extra the service says in one line what to install; settings can be read all the same."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules[{module!r}] = None  # as if it were not installed
from headrace.config import load
from headrace.model.errors import ConfigError
from headrace.service.settings import REGISTERS, SECTIONS
config = load(SECTIONS, env={env!r}, dotenv=None, toml=None)
try:
    REGISTERS.check(config)
except ConfigError as error:
    print(error)
"""
ENDPOINT = {"YELLOWSTONE_URLS": "http://127.0.0.1:1"}


def said(module: str, env: dict[str, str]) -> str:
    script = SCRIPT.format(module=module, env=env)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


MISSING = [("grpc", "grpcio"), ("hpack", "hpack"), ("google.protobuf", "protobuf")]


@pytest.mark.parametrize(("module", "package"), MISSING)
def test_missing_package_is_one_line(module: str, package: str) -> None:
    assert said(module, ENDPOINT) == (
        f"YELLOWSTONE_URLS: got endpoints, but not installed: {package}, "
        "expected in a clone: pip install '.[yellowstone]' first\n"
    )


def test_service_without_yellowstone_needs_no_package() -> None:
    assert said("google.protobuf", {}) == ""

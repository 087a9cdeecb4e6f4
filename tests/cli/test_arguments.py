"""The command line without a command run: help, mistypes, completion, and how little is imported for them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from headrace.cli.arguments import SHELLS
from tests.cli.conftest import Headrace

HEAVY: Final = (
    "asyncio",
    "ssl",
    "msgspec",
    "httpx",
    "litestar",
    "uvloop",
    "structlog",
    "solders",
    "logging",
)
"""What takes tens of milliseconds each to import, and what `--version` and help have no use for."""

_SHOW_IMPORTS: Final = """
import sys
from headrace.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules)
"""


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), (), ("orders",), ("serve", "--help"), ("serv",)])
def test_version_help_and_mistypes_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", _SHOW_IMPORTS, *arguments], capture_output=True, text=True, check=True
    )
    imported = set(shown.stdout.splitlines()[-1].split())
    assert "headrace.cli.arguments" in imported
    assert imported.isdisjoint(HEAVY)


def test_listen_and_orders_do_not_import_the_server() -> None:
    code = "import headrace.cli.listening, headrace.cli.ordering, sys; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"litestar", "headrace.service.server"}.isdisjoint(shown.stdout.split())


@pytest.mark.parametrize("arguments", [(), ("orders",)])
def test_no_command_shows_the_help_and_is_no_error(headrace: Headrace, arguments: tuple[str, ...]) -> None:
    result = headrace(*arguments)
    assert (result.status, result.err) == (0, "")
    assert "commands:" in result.out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("serv",), "did you mean serve?"),
        (("order", "place"), "did you mean orders?"),
        (("orders", "plaec"), "did you mean place?"),
        (("lsiten", "slots"), "did you mean listen?"),
        (("listen", "slots", "--jsno"), "did you mean --json?"),
        (("orders", "list", "--staus=PENDING"), "did you mean --status?"),
        (("bench", "pipelin"), "did you mean pipeline?"),
        (("completion", "bsh"), "did you mean bash?"),
    ],
)
def test_a_mistyped_word_is_refused_with_the_nearest_one(
    headrace: Headrace, arguments: tuple[str, ...], hint: str
) -> None:
    result = headrace(*arguments)
    assert result.status == 2
    assert hint in result.err


def test_a_word_near_to_none_is_refused_without_a_guess(headrace: Headrace) -> None:
    result = headrace("xyzzy")
    assert result.status == 2
    assert "unknown command: xyzzy (expected one of serve, " in result.err


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_code_is_what_the_shell_accepts(headrace: Headrace, shell: str, tmp_path: Path) -> None:
    code = headrace("completion", shell).out
    assert "headrace" in code
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "completion"
    file.write_text(code)
    checked = subprocess.run([program, "-n", str(file)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("headrace se", {"serve"}),
        ("headrace orders c", {"cancel"}),
        ("headrace listen --u", {"--url"}),
        ("headrace completion ", {"bash", "zsh", "fish"}),
        ("headrace xyz", set()),
    ],
)
def test_tab_completes_what_was_typed(typed: str, expected: set[str]) -> None:
    """As a shell asks: the line in the environment, the answers on descriptor 8."""
    read, write = os.pipe()
    environment = os.environ | {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": typed, "COMP_POINT": str(len(typed)),
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }  # fmt: skip
    script = f"import os, sys; os.dup2({write}, 8); from headrace.cli import main; main()"
    subprocess.run([sys.executable, "-c", script], env=environment, pass_fds=(write,), timeout=60, check=False)
    os.close(write)
    with os.fdopen(read) as answers:
        assert {word.strip() for word in answers.read().split("\n") if word.strip()} == expected

"""The reference page of the command line is that of the parser."""

from pathlib import Path
from typing import Final

from headrace.cli.arguments import parser
from headrace.cli.reference import reference
from tests.cli.conftest import Headrace

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def written(page: str) -> str:
    """The page with its sections made anew below the mark."""
    head, mark, _ = page.partition("test_reference`. -->\n")
    return f"{head}{mark}\n{reference(parser())}"


def test_the_reference_has_every_command_and_option() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run: python -m tests.cli.test_reference"
    assert page.count("\n## ") == 3 + 14 + 2 + 5 + 5 + 1
    assert "`--speed N`" in page


def test_help_names_every_command(headrace: Headrace) -> None:
    result = headrace("--help")
    assert result.status == 0
    for command in ("serve", "demo", "replay", "worker", "orders", "record", "decode", "listen", "config", "bench"):
        assert f"\n    {command} " in result.out


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

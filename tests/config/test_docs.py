"""The pages about configuration are true: their examples run, their tables are those of the code."""

import re
from pathlib import Path
from typing import Final

from headrace.config import CoreSettings, Features, load
from headrace.config.render import reference
from headrace.service.settings import SECTIONS

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCS / "reference" / "configuration.md"


def written(page: str) -> str:
    """The page with its tables made anew below the mark."""
    head, mark, _ = page.partition("test_docs`. -->\n")
    return f"{head}{mark}\n{reference(SECTIONS)}"


def test_the_reference_lists_every_setting() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run: python -m tests.config.test_docs"
    assert page.count("\n| `") > 14


def test_the_examples_load(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "configure.md").read_text()
    toml, dotenv = tmp_path / "headrace.toml", tmp_path / ".env"
    toml.write_text(example(page, "toml"))
    dotenv.write_text(example(page, "sh"))
    config = load(SECTIONS, env={}, dotenv=dotenv, toml=toml)
    assert config.section(CoreSettings).server_id == "eu-1"
    assert not config.section(Features).dashboard
    assert config.warnings == ()
    exec(compile(example(page, "python"), "configure.md", "exec"), {})


def example(page: str, language: str) -> str:
    block = re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert block is not None
    return block[1]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

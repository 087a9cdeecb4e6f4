"""The pages about decoders are true: the table is that of the registry, the example of a new program runs."""

import re
from pathlib import Path
from typing import Final

import msgspec
import pytest

from headrace.decoders.idl import discriminator
from headrace.decoders.registry import Programs
from headrace.inspect.transactions import inspect

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCS / "reference" / "decoders.md"
BEGIN: Final = "python -m tests.decoders.test_docs writes this table -->\n"
END: Final = "<!-- end -->"


def written(page: str) -> str:
    """The page with its table made anew."""
    head, mark, rest = page.partition(BEGIN)
    lines = ["| program | id | instructions | events | accounts |", "|---|---|---:|---:|---:|"]
    for name, program in sorted(Programs.load().by_name.items()):
        counts = " | ".join(str(len(parts)) for parts in (program.instructions, program.events, program.accounts))
        lines.append(f"| `{name}` | `{program.program_id}` | {counts} |")
    return f"{head}{mark}\n{chr(10).join(lines)}\n\n{END}{rest.partition(END)[2]}"


def test_the_table_counts_what_is_on_board() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run: python -m tests.decoders.test_docs"


def test_the_example_of_a_new_program_runs(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "add-a-program.md").read_text()
    example = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    shown = re.search(r"--owner (\w+) --json (\S+)\n(\{.*\})\n", page)
    assert example is not None
    assert shown is not None
    (tmp_path / "counter.json").write_text(example[1])
    found = inspect(shown[2], Programs.load(tmp_path), owner=shown[1])
    assert msgspec.json.encode(found).decode() == shown[3]


@pytest.mark.parametrize("part", ["event", "instruction"])
def test_the_discriminators_of_the_example_are_those_of_anchor(part: str) -> None:
    page = (DOCS / "how-to" / "add-a-program.md").read_text()
    name = {"event": "event:Incremented", "instruction": "global:increment"}[part]
    assert str(list(discriminator(*name.split(":")))) in page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

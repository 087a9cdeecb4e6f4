"""Print a random sample of the docstrings and comments in src, to be judged by a reader who has not seen the code.

`sample_prose.py [COUNT] [SEED]` prints COUNT (60) of them with file and line. Read them in a row, and mark those that
make no sense without the code. Rewrite the marked ones.
"""

import ast
import random
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

SOURCES: Final = Path(__file__).parents[1] / "src"
MARKS: Final = ("noqa", "type:", "pragma", "fmt:")
"""First words of comments that are for tools."""


class Prose(NamedTuple):
    """A docstring or comment, and its place."""

    file: Path
    line: int
    text: str
    lines: int = 0
    """Lines of a comment that stands alone; 0 for other prose."""


def prose_of(file: Path) -> Iterator[Prose]:
    """Yield the docstrings of one file, including attribute docstrings, and its comments of three words or more.

    Comments on consecutive lines are one comment.
    """
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        for child in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            value = child.value if isinstance(child, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield Prose(file, child.lineno, " ".join(value.value.split()))
    comments: list[Prose] = []
    with file.open("rb") as lines:
        for token in tokenize.tokenize(lines.readline):
            text = token.string.lstrip("# ")
            if token.type != tokenize.COMMENT or text.startswith(MARKS):
                continue
            whole_line, last = token.line.lstrip().startswith("#"), comments[-1] if comments else None
            if whole_line and last is not None and last.line + last.lines == token.start[0]:
                comments[-1] = Prose(file, last.line, f"{last.text} {text}", last.lines + 1)
            else:
                comments.append(Prose(file, token.start[0], text, 1 if whole_line else 0))
    yield from (comment for comment in comments if len(comment.text.split()) > 2)


def main() -> None:
    """Print the sample."""
    count, seed = (int(given) for given in (sys.argv[1:] + ["60", "1"][len(sys.argv) - 1 :])[:2])
    everything = [prose for file in sorted(SOURCES.rglob("*.py")) for prose in prose_of(file)]
    for prose in random.Random(seed).sample(everything, min(count, len(everything))):
        print(f"{prose.file.relative_to(SOURCES)}:{prose.line}\n    {prose.text}\n")


if __name__ == "__main__":
    main()

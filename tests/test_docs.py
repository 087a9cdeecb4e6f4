"""README and docs are true: links lead somewhere, commands exist with the options shown, Python examples run."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from headrace.cli.arguments import parser

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*/README.md")])
MAKE_TARGETS: Final = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_DOC: Final = re.compile(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`")
_TESTS: Final = re.compile(r"`(tests/[\w/.-]+)`")
_BLOCK: Final = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [link.partition("#")[0] for link in _LINK.findall(text) if not re.match(r"https?:|mailto:|#", link)]
    wanted = [page.parent / link for link in links] + [page.parent / f"{link}.md" for link in _DOC.findall(text)]
    wanted += [ROOT / path for path in _TESTS.findall(text)]
    missing = {name_of(path.resolve()) for path in wanted if not path.exists()}
    assert missing == set()


def blocks(page: Path, *languages: str) -> Iterator[str]:
    return (code for language, code in _BLOCK.findall(page.read_text()) if language in languages)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every line of a shell block that calls headrace or make: (page, words without leading settings)."""
    for page in PAGES:
        for code in blocks(page, "sh", "console"):
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                if words and Path(words[0]).name in ("headrace", "make"):
                    yield name_of(page), words


@pytest.mark.parametrize(("page", "words"), list(commands()))
def test_commands_are_as_shown(page: str, words: list[str]) -> None:
    if words[0] == "make":
        assert set(words[1:]) <= MAKE_TARGETS
        return
    for path in (word for word in words if word.startswith("tests/")):
        assert list(ROOT.glob(path)), path
    end = next((at for at, word in enumerate(words) if word in ("|", ">", "&", "<")), len(words))
    parser().parse_args(words[1:end])  # exits for a command or an option that there is not


NEEDS_A_SERVER: Final = {
    "docs/how-to/write-a-client.md",
    "docs/how-to/follow-over-http.md",
    "docs/how-to/notify-users.md",
    "docs/how-to/place-orders.md",
}
"""Their programs run in tests/gateway and tests/sdk."""

NEEDS_A_BROKER: Final = {"docs/how-to/many-servers.md"}
"""Name of the page's program that needs RabbitMQ and a package for it, so it is only compiled."""


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(blocks(page, "python")) and name_of(page) not in NEEDS_A_SERVER],
    ids=name_of,
)
def test_python_examples_run(page: Path, tmp_path: Path) -> None:
    """Each page's blocks, one after the other, in a folder with a transaction to read."""
    transaction = next((ROOT / "tests/data/mainnet/transactions").iterdir())
    (tmp_path / "transaction.json").write_bytes(transaction.read_bytes())
    code = "\n".join(blocks(page, "python"))
    if name_of(page) in NEEDS_A_BROKER:
        compile(code, name_of(page), "exec")
        return
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

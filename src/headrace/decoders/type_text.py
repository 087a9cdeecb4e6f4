"""Converts an IDL's types in Rust text (`Tracked<u64>`, `(Update, u64)`, `[Vec<T>; 4]`) to type expressions."""

import re
from typing import Any, Final, TypeAlias

Expression: TypeAlias = Any
"""A type in the IDL format of Anchor 0.30: a name, or an object with one key."""

TEXT_MAX: Final = 2000
DEPTH_MAX: Final = 64

_WORD: Final = re.compile(r"\s*(::|[A-Za-z_][A-Za-z0-9_]*|[0-9]+|'[a-z_]+|[<>()\[\],;&])\s*")
_SMART: Final = frozenset({"Box", "Rc", "Arc", "Cell", "RefCell", "Cow"})
_WRAPPERS: Final = {
    "Vec": "vec", "VecDeque": "vec", "Option": "option", "COption": "coption", "HashSet": "hashSet",
    "BTreeSet": "bTreeSet", "HashMap": "hashMap", "BTreeMap": "bTreeMap",
}  # fmt: skip


def is_text(name: str) -> bool:
    """Return whether a name is Rust text and not just a name."""
    return not name.isidentifier()


def parse(text: str) -> Expression | None:
    """Parse `text` as a type; None if it is not a Rust type, or nests deeper than DEPTH_MAX."""
    if len(text) > TEXT_MAX:
        return None
    words: list[str] = []
    at = 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            return None
        words.append(match[1])
        at = match.end()
    parser = _Parser(words)
    try:
        read = parser.type(0)
    except _NoType:
        return None
    return read if parser.at == len(words) else None


class _NoType(Exception):  # noqa: N818 - control flow inside this file
    """The text is not a type."""


class _Parser:
    """Reads the words once, from left to right."""

    def __init__(self, words: list[str]) -> None:
        self.words = [*words, ""]
        self.at = 0

    def next(self) -> str:
        word = self.words[self.at]
        self.at += 1
        if not word:
            raise _NoType
        return word

    def ends_with(self, closing: str) -> bool:
        """Consume the next word if it is `closing`. Return whether it was."""
        if self.words[self.at] != closing:
            return False
        self.at += 1
        return True

    def expect(self, word: str) -> None:
        if not self.ends_with(word):
            raise _NoType

    def type(self, depth: int) -> Expression:
        if depth > DEPTH_MAX:
            raise _NoType
        word = self.next()
        if word == "&":
            if self.words[self.at].startswith("'"):
                self.at += 1
            return self.type(depth + 1)
        if word == "(":
            items = self.list_until(")", depth)
            return items[0] if len(items) == 1 and self.words[self.at - 2] != "," else {"tuple": items}
        if word == "[":
            item = self.type(depth + 1)
            if self.ends_with("]"):  # a slice
                return {"vec": item}
            self.expect(";")
            length = self.next()
            self.expect("]")
            return {"array": [item, length]}
        return self.named(word, depth)

    def named(self, word: str, depth: int) -> Expression:
        while self.ends_with("::"):
            word = self.next()
        if not word.isidentifier():
            raise _NoType
        if not self.ends_with("<"):
            return word
        arguments = self.list_until(">", depth)
        if word in _SMART and len(arguments) == 1:
            return arguments[0]
        if word in _WRAPPERS and arguments:
            return {_WRAPPERS[word]: arguments if word.endswith("Map") else arguments[0]}
        return {"defined": {"name": word, "generics": [_argument(each) for each in arguments]}}

    def list_until(self, closing: str, depth: int) -> list[Expression]:
        items: list[Expression] = []
        while not self.ends_with(closing):
            word = self.words[self.at]
            if word.startswith("'"):  # a lifetime is not an argument
                self.at += 1
            elif word[:1].isdigit():
                items.append(int(word))
                self.at += 1
            else:
                items.append(self.type(depth + 1))
            if not self.ends_with(","):
                self.expect(closing)
                break
        return items


def _argument(given: Expression) -> dict[str, Any]:
    if isinstance(given, int):
        return {"kind": "const", "value": str(given)}
    return {"kind": "type", "type": given}

"""All settings of all sections by name. Parses, checks and shows the value of each field."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from headrace.config.kinds import KINDS, URLS
from headrace.config.setting import SameAs, Setting
from headrace.config.shapes import RefusedError, Shape
from headrace.model.redact import HIDDEN, redact

M = TypeVar("M", Setting, SameAs)

_SHOWN_LENGTH_MAX: Final = 120


class Shielded(str):
    """Text whose `repr` (in settings or a traceback) shows only a form without secrets."""

    shown: str
    __slots__ = ("shown",)

    def __new__(cls, text: str, shown: str = HIDDEN) -> "Shielded":
        shielded = super().__new__(cls, text)
        shielded.shown = shown
        return shielded

    def __repr__(self) -> str:
        return repr(self.shown)


class Field(NamedTuple):
    """One setting. `key` is the name by which it is known everywhere: `section.name`."""

    section: str
    name: str
    setting: Setting
    shape: Shape
    info: msgspec.structs.FieldInfo

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def expected(self) -> str:
        return self.shape.expected(KINDS[self.setting.kind])

    @property
    def may_hold_a_secret(self) -> bool:
        return self.setting.secret or self.setting.kind in URLS

    @property
    def required(self) -> bool:
        return self.info.required

    def default(self) -> Any:
        """Return the field's default. Raises RefusedError if the field has none."""
        if self.info.default is not msgspec.NODEFAULT:
            return self.info.default
        if self.info.default_factory is msgspec.NODEFAULT:
            raise RefusedError
        return self.info.default_factory()

    def read(self, given: Any, *, as_text: bool) -> Any:
        """Return the value of environment text, or of a TOML value. Raises RefusedError."""
        demand = KINDS[self.setting.kind]
        value = self.shape.from_text(given, demand) if as_text else self.shape.from_toml(given, demand)
        return self._shielded(value)

    def shown(self, value: Any) -> Any:
        """Return a valid value as plain JSON, with secrets hidden."""
        if value is None or value == ():
            return None if value is None else []
        if self.setting.secret:
            return HIDDEN
        if isinstance(value, tuple):
            return [self.shown(item) for item in value]
        if isinstance(value, bool | int | float):
            return value
        return KINDS[self.setting.kind].shown(str(value))

    def refused(self, given: Any) -> str:
        """Return a refused value for an error message: one line, shortened, without secrets."""
        if self.setting.secret:
            return HIDDEN
        if isinstance(given, str):
            items = given.split(",") if self.shape.many else [given]
            given = ",".join(KINDS[self.setting.kind].refused(item.strip()) for item in items)
        elif isinstance(given, list) and all(isinstance(item, str) for item in given):
            given = [KINDS[self.setting.kind].refused(item) for item in given]
        elif isinstance(given, list | dict):  # not shown, because any part of it may contain a secret
            return "a list" if isinstance(given, list) else "a table"
        text = redact(repr(given))
        return text if len(text) <= _SHOWN_LENGTH_MAX else f"{text[:_SHOWN_LENGTH_MAX]}…"

    def _shielded(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._shielded(item) for item in value)
        if isinstance(value, str):
            shown = HIDDEN if self.setting.secret else KINDS[self.setting.kind].shown(value)
            return value if shown == value else Shielded(value, shown)
        return value


def fields_of(sections: Mapping[str, type[msgspec.Struct]]) -> dict[str, Field]:
    """Return every field of every section, by key. Raises TypeError for a declaration that can't work."""
    if len(set(sections.values())) != len(sections):
        raise TypeError("a settings type can be one section only, since it is looked up by its type")
    found = {}
    for section, struct in sections.items():
        keys = keys_of(sections, struct)
        for info in msgspec.structs.fields(struct):
            if keys[info.name] != f"{section}.{info.name}":
                continue
            setting = _marker(info.type, Setting)
            if setting is None:
                raise TypeError(f"{struct.__name__}.{info.name} has no Setting in its Annotated type")
            try:
                field = Field(section, info.name, setting, Shape.of(info.type), info)
            except TypeError as error:
                raise TypeError(f"{struct.__name__}.{info.name}: {error}") from None
            if setting.secret and field.shape.base is not str:
                raise TypeError(f"{struct.__name__}.{info.name}: only text can be secret, a number shows in a repr")
            found[field.key] = field
        for name, key in keys.items():
            if key.rpartition(".")[0] not in sections:
                raise TypeError(f"{struct.__name__}.{name} is the same as {key}, whose section is not there")
    return found


def names_of_files(fields: Iterable[Field]) -> dict[str, str]:
    """Return `NAME_FILE` → `NAME` for each setting that may contain a secret: those declared as secret, and URLs.

    A name that is itself the name of a setting is left out.
    """
    fields = tuple(fields)
    taken = {name for field in fields for name in field.setting.env}
    names = {f"{name}_FILE": name for field in fields if field.may_hold_a_secret for name in field.setting.env}
    return {file: name for file, name in names.items() if file not in taken}


def keys_of(sections: Mapping[str, type[msgspec.Struct]], struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return field name → key for a settings type.

    The key of an inherited field is in the section of the type that declares it. The key of a field with `SameAs` is
    the key that `SameAs` names.
    """
    names = {known: section for section, known in sections.items()}
    keys: dict[str, str] = {}
    for known in reversed(struct.__mro__):
        if known in names:
            for info in msgspec.structs.fields(known):
                same = _marker(info.type, SameAs)
                keys.setdefault(info.name, f"{names[known]}.{info.name}" if same is None else same.key)
    return keys


def _marker(annotation: Any, kind: type[M]) -> M | None:
    if get_origin(annotation) is not Annotated:
        return None
    return next((extra for extra in get_args(annotation)[1:] if isinstance(extra, kind)), None)

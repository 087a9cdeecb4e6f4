"""The settings in force: typed access, the origin of each value, and changes while the process runs."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from headrace.config.fields import fields_of, keys_of, names_of_files
from headrace.config.inputs import Inputs, Origin, read_inputs
from headrace.config.resolve import build, resolve
from headrace.config.secret_files import read_secret_files
from headrace.model.errors import ConfigError, HeadraceError
from headrace.model.redact import redact

S = TypeVar("S", bound=msgspec.Struct)


class WrongSettings(ConfigError):  # noqa: N818  (the name that operators see)
    """All errors of the settings, one line each, in `errors`. The other fields are those of the first error."""

    def __init__(self, errors: tuple[ConfigError, ...]) -> None:
        first = errors[0]
        super().__init__(first.key, first.given, first.expected, origin=first.origin)
        self.errors = errors
        self.args = ("\n".join(str(error) for error in errors),)


class Row(NamedTuple):
    """One setting as `headrace config` shows it. `value` is plain JSON with secrets hidden."""

    key: str
    env: tuple[str, ...]
    value: Any
    origin: str
    about: str
    live: bool


class Change(NamedTuple):
    """Effect of a reload, as lists of keys. If there are `errors`, nothing changed.

    `needs_restart` are settings that were given another value but can't change live. They keep their old value, and the
    other settings change all the same.
    """

    applied: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    errors: tuple[ConfigError, ...] = ()
    warnings: tuple[str, ...] = ()


class Config:
    """Settings of all sections, as `load` returns them. No text form shows a secret."""

    def __init__(
        self,
        sections: Mapping[str, type[msgspec.Struct]],
        env: Mapping[str, str],
        dotenv: Path | None,
        toml: Path | None,
    ) -> None:
        self._sections, self._fields = dict(sections), fields_of(sections)
        self._env, self._dotenv, self._toml = env, dotenv, toml
        self._listeners: list[tuple[type[msgspec.Struct], Callable[[Any, Any], None]]] = []
        inputs = self.read()
        resolved = resolve(self._fields, inputs)
        self._settings, misfits = ({}, []) if resolved.errors else build(self._sections, resolved.values)
        if errors := (*resolved.errors, *misfits):
            raise WrongSettings(errors)
        self._files, self._values, self._secret_files = inputs.files, resolved.values, inputs.secret_files
        self.origins: dict[str, Origin] = resolved.origins
        self.warnings: tuple[str, ...] = resolved.warnings

    def __repr__(self) -> str:
        return f"<Config of {', '.join(self._sections)}>"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files from which the settings are read, for `watch`. They need not exist."""
        return (*(path for path in (self._dotenv, self._toml) if path is not None), *self._secret_files)

    def section(self, struct: type[S]) -> S:
        """Return the current settings of one section. Raises KeyError for a type that is not a section."""
        settings = self._settings[struct]
        assert isinstance(settings, struct)
        return settings

    def files(self, struct: type[msgspec.Struct]) -> dict[str, str]:
        """Return the files that a section's settings make the process write: environment name (or key) → path."""
        settings = self.section(struct)
        fields = {name: self._fields[key] for name, key in keys_of(self._sections, struct).items()}
        return {
            field.setting.env[0] if field.setting.env else field.key: path
            for name, field in fields.items()
            if field.setting.kind == "file" and (path := getattr(settings, name))
        }

    def describe(self) -> list[Row]:
        """Return all settings in the order of their sections."""
        return [
            Row(
                key,
                field.setting.env,
                field.shown(self._values[key]),
                str(self.origins[key]),
                field.setting.about,
                field.setting.live,
            )
            for key, field in self._fields.items()
        ]

    def on_change(self, struct: type[S], callback: Callable[[S, S], None]) -> Callable[[], None]:
        """Call `callback(old, new)` when live settings of a section change. Call the returned function to stop.

        The callback must be quick. It refuses a change by raising HeadraceError or ValueError before any effect. If a
        later callback raises, the change is undone by a second call with both arguments swapped, which must revert the
        effect.
        """
        entry = (struct, callback)
        self._listeners.append(entry)

        def stop() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return stop

    def read(self) -> Inputs:
        """Read environment and files again, without checking the values.

        Blocks on files, so it may be called in a thread.
        """
        inputs = read_inputs(self._env, self._dotenv, self._toml, self._sections)
        return read_secret_files(inputs, names_of_files(self._fields.values()))

    def reload(self, inputs: Inputs | None = None) -> Change:
        """Put `inputs` (default: read now) in force. If there is any error, all settings stay unchanged.

        On an event loop, call `read` in a thread and pass its result. If a callback raises anything but a refusal, the
        exception is raised after the change was undone.
        """
        inputs = self.read() if inputs is None else inputs
        fresh = resolve(self._fields, inputs)
        errors = [*fresh.errors, *self._vanished(inputs)]
        if not errors:
            errors += build(self._sections, fresh.values)[1]
        if errors:
            return Change(errors=tuple(errors), warnings=fresh.warnings)
        changed = [key for key, value in fresh.values.items() if value != self._values[key]]
        applied = tuple(key for key in changed if self._fields[key].setting.live)
        held = tuple(key for key in changed if key not in applied)
        values = fresh.values | {key: self._values[key] for key in held}
        settings, misfits = build(self._sections, values)
        refusal = misfits or self._announce(settings)
        if refusal:
            return Change(errors=tuple(refusal), warnings=fresh.warnings)
        self._settings, self._values, self._files = settings, values, inputs.files
        self.origins = fresh.origins | {key: self.origins[key] for key in held}
        self.warnings = fresh.warnings
        return Change(applied, held, (), fresh.warnings)

    def _vanished(self, inputs: Inputs) -> list[ConfigError]:
        """Return an error for each file that no longer exists: more likely an accident than a request for defaults."""
        gone = sorted(self._files - inputs.files - {path for path in self._files if path.name in _keys(inputs.errors)})
        return [ConfigError(path.name, "no file, though there was one", "the file, or a restart") for path in gone]

    def _announce(self, settings: Mapping[type[msgspec.Struct], msgspec.Struct]) -> list[ConfigError]:
        """Call the callbacks of every section that differs.

        If a callback refuses, call the earlier callbacks again to undo the change.
        """
        struct: type[msgspec.Struct] | None = None
        try:
            with ExitStack() as undo:
                for struct, callback in tuple(self._listeners):
                    old, new = self._settings[struct], settings[struct]
                    if old != new:
                        callback(old, new)
                        undo.callback(callback, new, old)
                undo.pop_all()
        except ConfigError as error:
            return [error]
        except (HeadraceError, ValueError) as error:
            name = next(name for name, known in self._sections.items() if known is struct)
            return [ConfigError(name, f"a refusal ({redact(str(error))})", "a change that can be made live")]
        return []


def load(
    sections: Mapping[str, type[msgspec.Struct]],
    *,
    env: Mapping[str, str],
    dotenv: Path | None,
    toml: Path | None,
) -> Config:
    """Read all settings. `sections` maps TOML section names to settings types, each field with a `Setting`.

    A file that does not exist is not an error. Raises WrongSettings (a ConfigError) with all errors of the settings,
    and TypeError for a settings type that is itself wrong.
    """
    return Config(sections, env, dotenv, toml)


def _keys(errors: tuple[ConfigError, ...]) -> set[str]:
    return {error.key for error in errors}

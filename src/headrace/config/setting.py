"""`Setting`: the meaning of a settings field, its environment names, and whether it may change live."""

from dataclasses import dataclass

from headrace.config.kinds import Kind


@dataclass(frozen=True)
class Setting:
    """Declaration in a settings field's type, as in `Annotated[int, msgspec.Meta(ge=1), Setting("TCP port")]`.

    - `env`: its environment names. The first name that is set is used.
    - `live`: it may change without a restart.
    - `secret`: its value is never shown.
    - `kind`: a further requirement on text (on each item of a list): `ws_url`, `http_url`, `redis_url`, `database_url`
      or `key`. URLs are shown without their passwords and API keys. The kind `file` is a file that the process writes.
    """

    about: str
    env: tuple[str, ...] = ()
    live: bool = False
    secret: bool = False
    kind: Kind = "text"


@dataclass(frozen=True)
class SameAs:
    """Declaration of a field that repeats another section's: `Annotated[str | None, SameAs("core.database_url")]`.

    The field has the value of `key`, and only `key` is shown.
    """

    key: str

"""What a room writes beside a settings field: its meaning, its environment names, whether it may change live."""

from dataclasses import dataclass

from headrace.config.kinds import Kind


@dataclass(frozen=True)
class Setting:
    """What a settings field adds to its type: `Annotated[int, msgspec.Meta(ge=1), Setting("TCP port", env=("PORT",))]`.

    `env` are the environment names that set it, first wins. `live`: it may change without a restart. `secret`: its
    value is never shown. `kind`: a further demand on text (each item of a list): `ws_url`, `http_url`, `redis_url`,
    `database_url` or `key`; URLs are shown without their passwords and API keys. `file`: a file that the
    process writes.
    """

    about: str
    env: tuple[str, ...] = ()
    live: bool = False
    secret: bool = False
    kind: Kind = "text"


@dataclass(frozen=True)
class SameAs:
    """A settings field that is another section's: `Annotated[str | None, SameAs("core.database_url")]`.

    The field has the value of `key` and is shown there alone.
    """

    key: str

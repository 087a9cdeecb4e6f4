"""Recorded Yellowstone updates (tests/data/mainnet) as the bytes in which a node sends them."""

from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from headrace.model.base58 import b58decode
from headrace.sources.yellowstone.messages import geyser
from tests.mainnet import Entry, entries


@cache
def recorded() -> tuple[Entry, ...]:
    return tuple(each for each in entries() if each.kind == "yellowstone_txupdates")


def message_of(document: Any, names: tuple[str, ...]) -> bytes:
    """The recorded JSON as a serialized `SubscribeUpdate` under filters of these names."""
    update = geyser.SubscribeUpdate(filters=names)
    _fill(update.transaction, document)
    raw: bytes = update.SerializeToString()
    return raw


def _fill(message: Any, document: dict[str, Any]) -> None:
    for name, value in document.items():
        field = message.DESCRIPTOR.fields_by_camelcase_name.get(name) or message.DESCRIPTOR.fields_by_name.get(name)
        if field is None or value is None:
            continue
        if field.is_repeated:
            for each in value:
                if field.type == FieldDescriptor.TYPE_MESSAGE:
                    _fill(getattr(message, field.name).add(), each)
                else:
                    getattr(message, field.name).append(_plain(field, each))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).SetInParent()
            _fill(getattr(message, field.name), value)
        else:
            setattr(message, field.name, _plain(field, value))


def _plain(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b58decode(value) if isinstance(value, str) else bytes(value)
    if field.type in (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_INT64):
        return int(value)
    return value

"""The client that users import: follow topics of a Headrace server and lose nothing without being told."""

from headrace.model.events import Position
from headrace.sdk.client import Client
from headrace.sdk.subscription import Subscription
from headrace.sdk.values import (
    Chain,
    Event,
    Gap,
    Head,
    Lag,
    NotRecovered,
    Page,
    Promote,
    Refused,
    Retract,
    Snapshot,
    Value,
)

__all__ = [
    "Chain",
    "Client",
    "Event",
    "Gap",
    "Head",
    "Lag",
    "NotRecovered",
    "Page",
    "Position",
    "Promote",
    "Refused",
    "Retract",
    "Snapshot",
    "Subscription",
    "Value",
]

"""The client for Python programs. It follows topics of a Headrace server without loss, and places each order once."""

from headrace.model.events import Position
from headrace.sdk.client import Client
from headrace.sdk.past import Past
from headrace.sdk.subscription import Subscription
from headrace.sdk.values import (
    Chain,
    Event,
    Gap,
    Head,
    Lag,
    NotRecovered,
    OrderAnswer,
    OrderRefused,
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
    "OrderAnswer",
    "OrderRefused",
    "Page",
    "Past",
    "Position",
    "Promote",
    "Refused",
    "Retract",
    "Snapshot",
    "Subscription",
    "Value",
]

"""Yellowstone gRPC as a source: a stream of accounts, transactions and slots that resumes after a disconnect."""

from headrace.sources.yellowstone.adapter import Yellowstone
from headrace.sources.yellowstone.settings import YellowstoneSettings

__all__ = ["Yellowstone", "YellowstoneSettings"]

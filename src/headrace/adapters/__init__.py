"""Adapters, which are chosen by name, configured and opened in the same way for every port."""

from headrace.adapters.context import AccountFeed, Context, Cover, Patience
from headrace.adapters.register import Adapter, Register, load_class

__all__ = ["AccountFeed", "Adapter", "Context", "Cover", "Patience", "Register", "load_class"]

"""Adapters, which are chosen by name, configured and opened in the same way for every port."""

from headrace.adapters.context import Context, Patience
from headrace.adapters.register import Adapter, Register, load_class

__all__ = ["Adapter", "Context", "Patience", "Register", "load_class"]

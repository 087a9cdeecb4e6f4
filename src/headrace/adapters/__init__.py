"""Choose adapters by name, configure and open them: register and context, the same for every port."""

from headrace.adapters.context import Context, Patience
from headrace.adapters.register import Adapter, Register, load_class

__all__ = ["Adapter", "Context", "Patience", "Register", "load_class"]

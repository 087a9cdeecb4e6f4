"""The HTTP side: one Litestar application from the handlers beside this file."""

from headrace.gateway.routes.application import build

__all__ = ["build"]

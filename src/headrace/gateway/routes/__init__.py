"""The HTTP routes: one Litestar application from the handlers in this folder."""

from headrace.gateway.routes.application import build

__all__ = ["build"]

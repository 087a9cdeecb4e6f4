"""Headrace: Solana streams and order execution in one service."""

__version__ = "0.1.0"

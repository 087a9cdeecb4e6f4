"""Solana nodes: the JSON-RPC client, and parsers that turn the nodes' JSON into updates."""

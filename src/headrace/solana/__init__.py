"""Solana node access: JSON-RPC client and its JSON turned into updates."""

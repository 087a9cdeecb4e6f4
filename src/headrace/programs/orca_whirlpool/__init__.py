"""Orca's Whirlpools, concentrated liquidity."""

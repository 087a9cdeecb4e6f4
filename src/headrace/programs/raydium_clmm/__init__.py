"""Raydium's concentrated liquidity."""

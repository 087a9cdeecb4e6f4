"""Raydium's constant-product pools."""

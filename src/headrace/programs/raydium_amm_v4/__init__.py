"""Raydium's AMM v4, which logs as text."""

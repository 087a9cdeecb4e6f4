"""Pump.fun's program of fees."""

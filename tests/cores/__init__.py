"""Tests of the cores, beside their contract in tests/contracts."""

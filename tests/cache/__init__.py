"""Tests of the feed between bus and cache."""

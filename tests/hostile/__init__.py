"""Attacks on Headrace from the node's side."""

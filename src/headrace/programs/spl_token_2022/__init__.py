"""The token program with extensions."""

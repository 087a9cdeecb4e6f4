"""The token program."""

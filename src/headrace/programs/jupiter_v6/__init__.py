"""Jupiter, the aggregator: its events repeat swaps of other programs."""

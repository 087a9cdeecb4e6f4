"""Composes the service from all packages, with adapters chosen by its settings, and ends it in order."""

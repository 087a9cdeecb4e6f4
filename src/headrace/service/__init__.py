"""Compose the service from all packages, with adapters chosen by its settings, and end it in order."""

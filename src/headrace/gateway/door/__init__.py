"""Checks on a client before the gateway serves it: origins, addresses, counts, rates and deadlines."""

"""Check a client before the gateway serves it: origins, addresses, numbers, rates and deadlines."""

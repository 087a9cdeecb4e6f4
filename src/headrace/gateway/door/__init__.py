"""What a client must pass before the gateway serves it: origins, addresses, numbers, rates and deadlines."""

"""The order flow: the intake accepts orders, the engine executes them, and pure modules decide each step."""

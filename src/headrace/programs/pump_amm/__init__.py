"""PumpSwap, where coins of pump.fun trade after their curve."""

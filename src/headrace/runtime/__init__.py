"""Services that the packages above build on: time, tasks, channels, backoff, breakers, health, logs and metrics."""

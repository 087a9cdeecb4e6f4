"""Services on which the higher packages build: time, tasks, channels, backoff, breakers, health, logs and metrics."""

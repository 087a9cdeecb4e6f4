"""The ground floor: time, tasks, channels, backoff, breakers, health, logs and metrics."""

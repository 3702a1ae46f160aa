"""hwdkit checkpoint: import, inspect, verify, strip and card."""

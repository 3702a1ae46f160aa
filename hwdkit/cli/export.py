"""hwdkit export."""

"""hwdkit compare."""

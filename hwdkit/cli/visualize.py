"""hwdkit visualize."""

"""hwdkit sweep."""

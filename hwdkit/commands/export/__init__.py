"""hwdkit export: a network for machines without hwdkit."""

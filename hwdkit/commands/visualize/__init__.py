"""hwdkit visualize: the papers' figures from a user's own networks."""

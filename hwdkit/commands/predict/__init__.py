"""hwdkit predict: a network on a user's own images and films."""

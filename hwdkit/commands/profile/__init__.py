"""hwdkit profile: what networks and training steps cost."""

"""hwdkit sweep: a recipe under many settings and seeds."""

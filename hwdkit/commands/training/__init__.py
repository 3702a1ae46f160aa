"""hwdkit train-teacher and distill: one run, from recipe to run directory."""

"""hwdkit compare: is the difference real?"""

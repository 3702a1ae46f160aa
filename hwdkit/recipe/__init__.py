"""A run as a file: validated, torch-free recipes."""

from hwdkit.recipe.find import available, find
from hwdkit.recipe.load import digest, dump, load, loads_resolved
from hwdkit.recipe.schema import Recipe

__all__ = ["Recipe", "available", "digest", "dump", "find", "load", "loads_resolved"]

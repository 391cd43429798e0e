"""Scores of generated images against real ones; modules on arrays and tensors, which know of no configuration."""

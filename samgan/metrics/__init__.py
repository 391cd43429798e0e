"""Scores of generated images against real ones; every module stands alone and nothing heavy is imported here."""

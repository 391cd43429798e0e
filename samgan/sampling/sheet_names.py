"""The names of overview pictures, without what draws them, which needs torch."""

SHEET_NAMES = ("grid", "interpolation", "scales", "attention")
"""The keys of `samgan.sampling.sheets.SHEETS`."""

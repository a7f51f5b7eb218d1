"""The report of a screening: one page to look at, and tables for other programs."""

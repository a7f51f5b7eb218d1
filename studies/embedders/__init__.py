"""Verification by speaker encoders of other packages, beside those packages' own code."""

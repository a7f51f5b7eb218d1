"""Screening: measure recordings, calibrate on clean ones, judge folders of them."""

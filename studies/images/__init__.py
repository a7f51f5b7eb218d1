"""Studies of the same attacks, defences and detectors on images."""

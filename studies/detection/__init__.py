"""Detection of attacks by the purifier's response, for docs/results/detection.md."""

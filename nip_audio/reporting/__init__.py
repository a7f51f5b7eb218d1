"""Report a screening as one HTML page, and as tables for other programs."""

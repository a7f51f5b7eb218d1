"""Coverage of the two papers: what is built, tested and measured of each of their parts."""

"""Whether the intervals of ``nip-audio threshold`` hold what they promise."""

"""Everything on disk: numpy and bytes; no torch."""

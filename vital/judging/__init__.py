"""How good pictures are: networks that look at them, metrics, and intervals."""

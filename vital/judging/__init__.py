"""How good pictures are: what other networks make of them, metrics, and intervals."""

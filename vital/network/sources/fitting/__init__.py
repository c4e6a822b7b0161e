"""A network made ready: of a kind that can be used, shown what it takes, at the side that is asked for."""

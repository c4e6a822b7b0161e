"""Networks: where they come from, what layers they have, how they are read while they run."""

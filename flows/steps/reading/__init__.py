"""One pass over shards, from their bytes to what they add to the store."""

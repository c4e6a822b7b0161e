"""The statistics store: what one pass over shards knows, and the targets of neurons."""

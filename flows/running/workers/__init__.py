"""The processes that tasks run in: which there are, what each of them has, how they are started."""

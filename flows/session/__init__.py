"""The functions of `flows`: recipes run from a Python program or a notebook."""

"""The atlas store: the pictures of all neurons of layers, what they were made with, and their metrics."""

"""Words: which class is which, and which words go along with a neuron."""

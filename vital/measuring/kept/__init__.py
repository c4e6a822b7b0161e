"""Which images a pass keeps of a layer: the best of every neuron, and some by lot for all of them."""

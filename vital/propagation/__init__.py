"""Relevance: one forward pass with two backward passes.

`mode` is the pass; `operations` and `attention_operations` say how it follows each torch operation; `rules` and
`attention` are the formulas; `conservation` measures what arrives.
"""

"""Batches of a split: their order, what they contain, and the processes that load them."""

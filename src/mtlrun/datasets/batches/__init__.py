"""How batches are made of a split: their order, what they hold, and who loads them."""

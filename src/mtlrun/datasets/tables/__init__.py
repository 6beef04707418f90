"""Tables of labels: their cells, their rows in three splits, and their columns as targets."""

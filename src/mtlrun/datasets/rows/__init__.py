"""A person's own table: its cells, which row is in which split, and what is a target."""

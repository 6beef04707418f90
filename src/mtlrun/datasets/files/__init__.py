"""Images and arrays in files: how they are read, kept and changed at random."""

"""Formats of a comparison: each makes a text, or the bytes of a file, of a `Comparison`.

Here: what a value, a cell and a row look like. Not here: computing anything that is shown.
"""

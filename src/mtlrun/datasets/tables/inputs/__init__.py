"""Inputs: columns of a table as the numbers that a model sees."""

"""Splits: the rows of a table in training, validation and test."""

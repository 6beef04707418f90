"""Samples in files, images and arrays: reading, caching and augmentation."""

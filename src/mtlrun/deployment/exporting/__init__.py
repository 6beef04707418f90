"""A run's model as a file that needs nothing of mtlrun, and predictions from such a file.

What belongs here knows ONNX and torch.export. Their packages are imported when they are used, and named where they are
missing.
"""

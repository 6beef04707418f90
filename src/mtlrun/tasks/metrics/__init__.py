"""Metrics that torchmetrics lacks, or shares badly."""

"""Tensors in containers: which there are, how they change sides, what an operation writes to. Knows no models."""

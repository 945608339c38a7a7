"""Tensors in containers: how to find, move and lend them, and which of them an operation writes to. Knows no models."""

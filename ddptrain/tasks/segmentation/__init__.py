"""Segmentation: what every pixel of an image shows."""

"""Losses as sums: overlap of boxes, classes of images, classes of pixels; a network's own loss stands beside it in `models`."""

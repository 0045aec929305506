"""Mask2Former: network and loss."""

"""Interaction: which people in a panorama interact, and how."""

"""Interaction: which people interact, and how."""

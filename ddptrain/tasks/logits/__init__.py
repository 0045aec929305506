"""Logits: what classification and interaction share, tasks whose network gives each sample one number for each class."""

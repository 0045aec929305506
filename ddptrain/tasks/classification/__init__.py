"""Classification: what a whole image shows."""

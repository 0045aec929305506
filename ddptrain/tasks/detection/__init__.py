"""Detection: boxes with classes."""

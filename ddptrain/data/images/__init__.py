"""Image files: pixels, size, orientation."""

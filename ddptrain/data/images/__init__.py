"""Image files: pixels, size, orientation, depth."""

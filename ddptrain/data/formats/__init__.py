"""Readers: a file each format, `build` with all of them, `cache` for what they read, `write` for the way back."""

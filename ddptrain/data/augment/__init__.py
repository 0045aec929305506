"""Augmentation: where an image lies (geometry), its tint (color), both drawn together (view), and several images in one (mix,
partners). Every draw is a function of (seed, position, purpose)."""

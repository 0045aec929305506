"""Small datasets of synthetic pictures, for the demo and for tests."""

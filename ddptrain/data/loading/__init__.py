"""Batches from loader processes."""

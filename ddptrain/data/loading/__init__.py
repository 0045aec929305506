"""Batches: which samples make which (batches), the iterator over them (loader), the processes that make them (workers, shared),
and how one gets from there to the trainer (handover)."""

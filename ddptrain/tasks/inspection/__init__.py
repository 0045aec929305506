"""What can be said about a run from its datasets alone, before anything is learned."""

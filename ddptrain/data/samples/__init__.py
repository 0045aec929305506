"""From a key of the stream to a sample, and from samples to a batch."""

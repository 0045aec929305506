"""Checkpoints: the files, the writing beside training, the copy in host memory, and weights of other runs."""

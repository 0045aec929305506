"""Mask2Former (arXiv 2112.01527): the network, which transformers brings, and the loss."""

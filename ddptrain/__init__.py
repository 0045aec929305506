"""ddptrain: train vision models on weighted mixtures of datasets. A run is a function of its config and its seed."""

__version__ = "0.1.0"

"""ddptrain: train vision models on weighted mixtures of datasets. A run is a function of its config and its seed."""

from ddptrain.version import __version__

__all__ = ["__version__"]

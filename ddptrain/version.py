"""The version of the package, in a module of its own so that it can be read without a circle of imports."""

__version__ = "0.1.0"

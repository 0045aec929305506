"""The command line. Every subcommand is one function here that hands over to its module."""


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    return 0

"""`ddptrain`, and `python -m ddptrain`: the form that torchrun starts."""

from typing import NoReturn

from ddptrain.cli import main
from ddptrain.system.ending import end_with


def run() -> NoReturn:
    """Run the command of this process, and end it."""
    end_with(main)


if __name__ == "__main__":
    run()

"""`python -m ddptrain`: the form that torchrun starts."""

from ddptrain.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

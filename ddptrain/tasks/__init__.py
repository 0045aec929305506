"""Tasks: what is learned. The engine knows only the protocol in base.py."""

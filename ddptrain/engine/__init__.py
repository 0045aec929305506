"""The engine: one loop that knows no task. Read trainer.py first."""

"""Where a run is watched: the numbers, pictures and text of its logging intervals and evaluations.

base.py         `Tracker`, the methods of each
build.py        those of `monitor.trackers`, as one
tensorboard.py  event files (events.py) below the run folder
wandb.py        Weights & Biases
mlflow.py       MLflow
"""

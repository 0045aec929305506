"""Starts runs: through torchrun here, through submitit or sbatch on Slurm. Only agents and ranks import torch.

cli.py         the subcommands                           options.py     what their options may hold
torchrun.py    ranks on this machine                     sweep.py       one run for each combination of values
submission.py  check a config, lay out its job           job.py         a job's folder, the list of a user's jobs
sbatch.py      the batch script, queued by sbatch        source.py      the copy of the code that a job runs
submitit.py    the same, queued by submitit              cluster.py     what is asked of Slurm
batch.py       the script's first and last word: prepare a start, judge its end, requeue
plan.py        what an agent does in one start           preflight.py   is this machine fit to train?
agent.py       one per machine: starts the ranks         rendezvous.py  where the agents meet
worker.py      one per rank: runs the training           peers.py       which machines still answer
logs.py        the logs of the ranks                     control.py     list, read, cancel, requeue jobs
"""

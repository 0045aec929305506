"""Starting runs: torchrun on this machine, submitit and sbatch on Slurm. Imports no torch."""

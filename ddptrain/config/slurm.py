"""`slurm`: defaults of a Slurm submission."""

from pydantic import Field

from ddptrain.config.section import Section


class SlurmConfig(Section):
    """Defaults of a Slurm submission."""

    nodes: int = Field(default=1, ge=1)
    """Machines."""
    gpus_per_node: int = Field(default=8, ge=0)
    """GPUs, and so ranks, per machine."""
    time: str = "24:00:00"
    """Time limit, in Slurm's notation."""
    partition: str | None = None
    """Partition; null for the cluster's default."""

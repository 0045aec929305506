"""`slurm`: defaults of a Slurm submission."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from ddptrain.config.section import Section, Switch

RESERVED = (
    "array", "chdir", "error", "gpus-per-task", "ntasks", "ntasks-per-node", "open-mode", "output", "signal", "wrap",
)  # fmt: skip
"""sbatch parameters that the launcher sets itself."""
OWN_KEYS = {"nodes": "slurm.nodes", "time": "slurm.time", "job-name": "name"}
"""sbatch parameters that the plan of a start depends on, and the key of the config that sets each."""
LEAST_S = 60
"""Seconds that a start must have before Slurm's signal, which may come a minute early."""


def one_line(value: str) -> str:
    """The value, which goes into a line of a batch script.

    Raises:
        ValueError: it is empty, or holds a line break or another control character.
    """
    if not value.strip() or not value.isprintable():
        raise ValueError(f"{value!r} must be one line of printable text, and not empty")
    return value


Line = Annotated[str, AfterValidator(one_line)]


def minutes(time: str) -> float:
    """A Slurm time limit in minutes.

    Raises:
        ValueError: it is none of Slurm's notations.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        raise ValueError(
            'allowed: minutes, "hours:minutes:seconds", "days-hours:minutes:seconds", or another of Slurm\'s notations '
            "(not UNLIMITED)"
        )
    days, a, b, c = (None if g is None else int(g) for g in match.groups())
    assert a is not None
    if days is not None:
        return days * 1440 + a * 60 + (b or 0) + (c or 0) / 60
    if c is not None:
        return a * 60 + (b or 0) + c / 60
    return a + (b or 0) / 60


def no_room(limit_s: float, signal_s: int) -> str:
    """Why a start under this time limit could not train; empty where it can."""
    if limit_s == 0 or limit_s >= signal_s + LEAST_S:  # Slurm takes 0 for no limit
        return ""
    most = max(int(limit_s) - LEAST_S, 0)
    remedy = f"a longer slurm.time, or slurm.signal_s of at most {most}" if most else f"a slurm.time of more than {LEAST_S} s"
    return (
        f"a time limit of {limit_s:.0f} s leaves no time to train, since the run is asked to stop {signal_s} s before it "
        f"(slurm.signal_s), and Slurm may send that signal up to {LEAST_S} s early; set {remedy}"
    )


class SlurmConfig(Section):
    """Defaults of a Slurm submission; options of `ddptrain submit` come before them, a user's
    `~/.config/ddptrain/slurm.yaml` after them."""

    nodes: int = Field(default=1, ge=1)
    """Number of machines."""
    gpus_per_node: int = Field(default=8, ge=0)
    """Number of GPUs, and so of ranks, per machine; 0 for a cluster without GPUs."""
    ranks_per_node: int | None = Field(default=None, ge=1)
    """Number of ranks per machine. Default: one per GPU, or one on a machine without GPUs."""
    cpus_per_task: int | None = Field(default=None, ge=1)
    """Number of CPU cores per machine (there is one Slurm task per machine). Default: ranks x (loader workers + 1)."""
    mem: Line | None = None
    """Memory per machine, in Slurm's notation."""
    signal_s: int = Field(default=120, ge=1, le=65535)
    """Number of seconds before the time limit at which the run saves and is queued again."""
    time: str = "24:00:00"
    """Time limit, in Slurm's notation; at least a minute longer than signal_s."""
    partition: Line | None = None
    """Partition; null for the cluster's default."""
    account: Line | None = None
    """Account to charge; null for the user's default."""
    qos: Line | None = None
    """Quality of service; null for the default."""
    constraint: Line | None = None
    """Features that the machines must have."""
    exclude: Line | None = None
    """Machines not to use, as a Slurm host list."""
    extra: dict[str, str | int | bool] = {}
    """Any further sbatch parameter by its long name; true for one without a value."""
    srun: dict[str, str | int | bool] = {}
    """Any srun parameter by its long name, such as `container-image`."""
    setup: tuple[str, ...] = ()
    """Shell commands that run first on the first machine, such as `module load cuda`; each must be complete. One that fails
    ends the job."""
    container: Line | None = None
    """Command before Python on every machine, such as `apptainer exec --nv image.sif`."""
    python: Line | None = None
    """Python on the machines. Default: the one that submits."""
    env: dict[str, str] = {}
    """Variables of every rank; those of the submitting shell are passed through (`NCCL_*`, `GLOO_SOCKET_IFNAME`)."""
    debug: Switch = False
    """Make NCCL and torch log what they do."""
    grace_s: float = Field(default=100.0, gt=0)
    """Number of seconds that a save may take before the ranks are killed."""
    max_stops: int = Field(default=100, ge=0)
    """How often the job is queued again after a stop (time limit, pre-emption) with a saved checkpoint."""
    max_crashes: int = Field(default=3, ge=0)
    """How often the job is queued again after crashes without a new checkpoint in between."""
    max_restarts: int = Field(default=2, ge=0)
    """How often all ranks are restarted in place, from the newest checkpoint, after one was lost."""
    check: Switch = True
    """Test every machine (GPUs, a matrix product, an all-reduce) before the ranks start, and exclude a bad one."""
    check_command: str | None = None
    """A further shell command of that test; a machine on which it fails is bad."""
    address: Line | None = None
    """Address of the first machine. Default: its name where that resolves, else its NodeAddr."""

    @property
    def ranks(self) -> int:
        """Ranks per machine."""
        return self.ranks_per_node or self.gpus_per_node or 1

    @field_validator("time", mode="before")
    @classmethod
    def _time(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):
            minutes(value)
        return value

    @field_validator("time")
    @classmethod
    def _room_to_train(cls, value: str, info: ValidationInfo) -> str:
        if "signal_s" in info.data and (why := no_room(minutes(value) * 60, info.data["signal_s"])):
            raise ValueError(why)
        return value

    @field_validator("extra")
    @classmethod
    def _extra(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for key in value:
            if not re.fullmatch(r"[a-z][a-z0-9-]*", key):
                raise ValueError(f"{key!r} is not a long name of sbatch, such as reservation")
            if key in RESERVED:
                raise ValueError(f"{key} is set by the launcher; all but {', '.join(RESERVED)} can be given")
            if key in OWN_KEYS:
                raise ValueError(f"{key} has a key of its own; set {OWN_KEYS[key]} instead")
        return value

    @field_validator("extra", "srun")
    @classmethod
    def _values(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for text in value.values():
            one_line(str(text))
        return value

    @field_validator("setup")
    @classmethod
    def _setup(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            if not line.strip():
                raise ValueError("a line is empty; remove it")
        return value

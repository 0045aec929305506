"""`train`, `eval`, `checkpoint` and `monitor`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ddptrain.config.section import Section, Switch


class TrainConfig(Section):
    """Length, batch and precision of a run."""

    epochs: float = Field(default=100.0, gt=0)
    """Length of the run in epochs of `data.samples_per_epoch` samples; not used when `steps` is given."""
    steps: int | None = Field(default=None, ge=1)
    """Length of the run in steps (optimizer updates), instead of epochs."""
    global_batch: int = Field(default=16, ge=1)
    """Number of samples per step, over all ranks and accumulation steps. From a few hundred images a detector learns more with
    4, on a CPU in hardly more time."""
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """Number of samples that are forwarded at once: with it the run has the same bits on every number of ranks that divides
    global_batch / micro_batch, and no other number is accepted. Default: chosen for the ranks at hand, at most 16. `auto`: by
    trial before the first step, the largest that fits into the memory of the GPUs, or on the CPU the fastest of at most 16; the
    log and the run folder's config.yaml have the number, and a resumed run keeps it."""
    threads: int | None = Field(default=None, ge=1)
    """Number of CPU threads of each rank, on which the bits of a run on the CPU depend. Default: what torch takes, or
    OMP_NUM_THREADS, which launchers set for several ranks; the log says how many."""
    deterministic: Switch = False
    """Use only deterministic CUDA kernels, which are slower. CPU kernels always are: there this changes nothing."""
    reduction: Literal["ordered", "fast"] = "ordered"
    """How gradients are added over micro batches and ranks: `ordered`, in one order on any number of ranks, or `fast`, as
    DistributedDataParallel does, whose sums differ from one number of ranks to another by rounding."""
    precision: Literal["none", "bf16", "fp16"] = "none"
    """Precision of autocast: `none` (float32), `bf16`, or `fp16` with loss scaling."""
    clip_norm: float | None = Field(default=10.0, gt=0)
    """Largest norm of the gradient; null for no clipping."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many evaluations without a better value of the task's own metric (AP, accuracy, mIoU, f1); null for
    never. One in which it is undefined does not count."""
    tf32: Switch = True
    """Multiply float32 matrices and convolve in TF32, with 10 bits of mantissa, on GPUs that support it: faster. CPUs have
    no TF32; `ddptrain verify` compares without it."""
    channels_last: Switch = True
    """Store images and weights channels-last, faster on CUDA and on the CPU."""
    max_bad_steps: int = Field(default=10, ge=0)
    """Number of steps in a row without a finite loss and gradient, each one skipped, after which the run ends."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Number of seconds that ranks wait for the slowest one before the run ends."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device to compute on; `auto` takes CUDA where there is a GPU per process."""


class EvalConfig(Section):
    """When and how to evaluate."""

    every_epochs: float | None = Field(default=1.0, gt=0)
    """Number of epochs between evaluations; null evaluates only at the end."""
    every_steps: int | None = Field(default=None, ge=1)
    """Number of steps between evaluations, instead of epochs."""
    batch: int | None = Field(default=None, ge=1)
    """Number of images that are forwarded at once. Default: train.micro_batch, or 16."""
    max_bad_images: int | None = Field(default=None, ge=0)
    """Number of validation images that may turn out unreadable before an evaluation fails; each one is replaced by a grey
    image. Default: one in a hundred, and at least one."""


class CheckpointConfig(Section):
    """When checkpoints are written and how many are kept."""

    every_epochs: float | None = Field(default=1.0, gt=0)
    """Number of epochs between checkpoints; null saves by steps, or only at the end."""
    every_steps: int | None = Field(default=None, ge=1)
    """Number of steps between checkpoints, instead of epochs."""
    keep_last: int = Field(default=2, ge=1)
    """Number of the newest checkpoints that are kept; older ones are deleted."""
    keep_every: int | None = Field(default=None, ge=1)
    """Checkpoints whose step is a multiple of this are kept for good."""
    monitor: tuple[str, ...] = ()
    """Further metrics whose best checkpoint is kept as `best_<metric>.pt`, beside `best.pt`, the one of the task's own
    metric; lower is better for `loss`, higher for all others."""


class MonitorConfig(Section):
    """What is written during a run."""

    every_steps: int = Field(default=50, ge=1)
    """Steps between two lines of losses, rates and times in the log, which also holds steps 1, 2, 5, 10, 20 … of a start."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where the run can be watched: `tensorboard` (event files below the run folder), `wandb` (Weights & Biases, also offline),
    `mlflow` (a server, or files beside the run folder); several are fine, [] for none."""
    images: int = Field(default=8, ge=0, le=64)
    """Number of training images, and of predictions beside the truth, that the trackers show; 0 for none."""
    console: Literal["quiet", "normal", "verbose"] = "normal"
    """What is printed; the log always has the lines of `normal`. `quiet` (`ddptrain train -q`): warnings and the last line;
    `verbose` (`-v`): a line for every step, too."""
    profile: int = Field(default=0, ge=0, le=1000)
    """Number of steps for which the log reports how long each part takes; as many steps after them are traced, for Perfetto
    or TensorBoard. Both are in the folder `profile` of the run. The bits of the run stay the same. 0 for none."""

    @field_validator("trackers")
    @classmethod
    def _each_once(cls, trackers: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for i, name in enumerate(trackers) if name in trackers[:i]]
        if twice:
            raise ValueError(f"{twice[0]} is listed twice; remove one of them")
        return trackers

"""`data`: which datasets, in which shares, how their images are read, resized and augmented."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ddptrain.config.section import FileName, Section, Switch

Format = Literal[
    "coco", "yolo", "voc", "visdrone", "visdrone-vid", "uavdt", "uavdt-xml", "auair", "csv",
    "folder", "mnist", "masks", "camvid", "ade20k", "jrdb", "own",
]  # fmt: skip
Exif = Literal["apply", "ignore"]


class DatasetConfig(Section):
    """One dataset of the mixture."""

    name: FileName
    """Short name, unique in its list, a plain file name; it appears in logs, metrics and errors."""
    format: Format
    """Layout of the annotations on disk; `own`: only a task of your own knows."""
    root: str = Field(min_length=1)
    """Folder of the dataset, relative to the working directory."""
    split: str | None = None
    """Which part: VOC `ImageSets/Main/<split>.txt`; YOLO the key of data.yaml or the folder; COCO
    `annotations/instances_<split>.json`; VisDrone `VisDrone2019-DET-<split>` or `-VID-`; UAVDT `M_attr/<split>` or a
    list of sequences `<split>.txt`; AU-AIR a list of images `<split>.txt`; CSV `<split>.csv`; folder and masks the
    subfolder; CamVid and ADE20K train or val; MNIST train or t10k; JRDB a list of sequences `<split>.txt`."""
    annotations: str | None = None
    """File or folder of the annotations, relative to `root`, where it is not at the format's usual place."""
    images: str | None = None
    """Folder of the images, relative to `root`, where it is not at the format's usual place."""
    exif: Exif = "apply"
    """Pixels of an image, mask or depth map whose EXIF header (JPEG, PNG, WebP) or orientation tag (TIFF) says that they
    are stored turned: `apply` stands them upright, as viewers and most annotation tools do; `ignore` reads them as they
    are stored, for annotations that were made in those pixels."""
    names: tuple[str, ...] | None = None
    """The dataset's own class names in the order of its ids, where nothing stores them (YOLO without data.yaml) or mere
    numbers stand in their place. Where the dataset or its format knows its classes, only they are accepted."""
    share: float | None = Field(default=None, ge=0)
    """Relative share of the drawn samples, whatever the dataset's size (2 and 1 mean 2:1). Default: its number of
    images. Not used in `val`."""
    rename: dict[str, str] = {}
    """Own class name → class of the run, `{Car: car}`; `"*"` is all own classes that nothing else says anything about."""
    ignore: tuple[str, ...] = ()
    """Own class names whose boxes become ignore regions: neither right nor wrong, in the loss and in the metric."""
    drop: tuple[str, ...] = ()
    """Own class names whose boxes are left out, as if they were not in the file."""
    annotated: Literal["all"] | tuple[str, ...] | None = None
    """Classes of the run that this dataset labels; a class outside them is unknown there, not absent. Default: the
    classes its names map to."""
    depth: str | None = None
    """Folder of depth maps, relative to `root`: 8- or 16-bit files (PNG, TIFF) with the images' names; for a model with
    `in_channels` 4 (depth) or 5 (depth, and whether it is known)."""
    depth_range: tuple[float, float] | None = None
    """Values in the files that become the ends of the 8-bit range, nearest first. Default: 0 and the largest."""
    depth_invalid: tuple[int, ...] = (0,)
    """Values in the files that mean that nothing is known."""
    depth_missing: Literal["error", "zeros"] = "error"
    """An image without a depth map: a fault like a missing image, or unknown everywhere (with `in_channels` 5)."""

    @field_validator("depth_range")
    @classmethod
    def _range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] == value[1]:
            raise ValueError("the two ends must differ")
        return value

    holdout: float | None = Field(default=None, gt=0, lt=1)
    """For a dataset that comes without splits: this part of it, drawn by file name, is the split `val`, the rest is
    `train`. Of classification it is this part of each class. Not for video: neighbouring frames would stand in both."""
    void: int | None = Field(default=None, ge=0, le=255)
    """Segmentation: the value of pixels that are of no class, neither right nor wrong. Default: 255, CamVid 11,
    ADE20K 0."""
    values: dict[Annotated[int, Field(ge=0, lt=6656)], Annotated[int, Field(ge=0)] | None] = {}
    """Segmentation: value in the masks → class number of `names`, counted from 0, or null for void: `{255: 1}`. A class that
    stands here keeps no other value; all others stay as they are."""
    sequences: tuple[str, ...] | None = None
    """Interaction: the sequences that are read. Default: those of the split, or all."""


class AugmentConfig(Section):
    """Augmentation of training images; every draw is a function of the seed and the sample's position in the stream."""

    scale: float = Field(default=0.5, ge=0, lt=1)
    """Zoom drawn from 1 - scale to 1 + scale."""
    translate: float = Field(default=0.1, ge=0, le=1)
    """Shift drawn from ± translate, as a fraction of the image size."""
    rotate: float = Field(default=0.0, ge=0, le=180)
    """Rotation drawn from ± rotate, in degrees."""
    shear: float = Field(default=0.0, ge=0, le=45)
    """Shear drawn from ± shear, in degrees, along each axis."""
    hflip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    vflip: float = Field(default=0.0, ge=0, le=1)
    """Probability of an upside-down flip."""
    hsv_h: float = Field(default=0.015, ge=0, le=0.5)
    """Hue gain drawn from 1 ± hsv_h."""
    hsv_s: float = Field(default=0.7, ge=0, le=1)
    """Saturation gain drawn from 1 ± hsv_s."""
    hsv_v: float = Field(default=0.4, ge=0, le=1)
    """Brightness gain drawn from 1 ± hsv_v."""
    mosaic: float = Field(default=0.0, ge=0, le=1)
    """Probability that four images are put together in one (detection)."""
    mixup: float = Field(default=0.0, ge=0, le=1)
    """Probability that a second image (or mosaic) is blended in (detection and classification)."""
    cutmix: float = Field(default=0.0, ge=0, le=1)
    """Probability that a box of a second image is pasted in, instead (classification)."""
    mix_alpha: float = Field(default=1.0, gt=0)
    """Classification: the second image's part in mixup, and its area in cutmix, are drawn from Beta(mix_alpha, mix_alpha)."""
    crop: Switch = False
    """Segmentation: take a random window of image_size at the image's own scale (times the drawn zoom), instead of the
    whole image scaled to fit: what `eval.window: slide` looks at."""
    close_epochs: float = Field(default=10.0, ge=0)
    """Last epochs of the run without mosaic, mixup and cutmix."""


class PairsConfig(Section):
    """Interaction: which pairs of people are looked at. All but the first two keys thin out the training pairs only; what
    is drawn is a function of the seed and the frame's name."""

    distance_multiplier: float = Field(default=3.0, gt=0)
    """Two people are a candidate when the horizontal distance of their centres, around the panorama's seam, is at most
    this many mean widths of their two boxes."""
    max_difficulty: int | None = Field(default=None, ge=1)
    """Labels that are harder than this (JRDB: 1 easy to 3 hard) count as unknown: pairs without an easier one are left
    out. Default: all labels count."""
    use_group_sampling: Switch = False
    """Everybody in a group (people connected by interactions) interacts with everybody in it, also in validation. Of a group
    of n people, only max_group_samples_ratio × n interacting pairs are learned from; a pair that is not drawn is left out,
    it does not become a negative."""
    max_group_samples_ratio: float = Field(default=1.0, gt=0)
    """See use_group_sampling."""
    max_negatives_per_frame: int | None = Field(default=None, ge=0)
    """Candidates without interaction that are learned from, per frame; null for all."""
    balance_ratio: float | None = Field(default=None, gt=0)
    """Candidates without interaction for each interacting pair that is learned from, over a dataset; null for all."""


class DataConfig(Section):
    """Datasets, sizes and augmentation."""

    train: tuple[DatasetConfig, ...] = Field(min_length=1)
    """The datasets of the training mixture."""
    val: tuple[DatasetConfig, ...] = Field(min_length=1)
    """The datasets that are evaluated, each on its own and all together."""
    image_size: int = Field(default=640, ge=32, multiple_of=32)
    """Side of the square network input, in pixels; images are letterboxed to it."""
    samples_per_epoch: int | None = Field(default=None, ge=1)
    """Samples drawn per epoch. Default: the number of training images."""
    workers: int = Field(default=2, ge=0, le=256)
    """Loader processes per rank; 0 loads in the training process. The samples do not depend on it."""
    on_fault: Literal["error", "drop"] = "error"
    """What a faulty image or label does at the start: end the run with a list, or be left out and counted."""
    max_bad_samples: int = Field(default=100, ge=0)
    """Training samples that may turn out unreadable during the run, each one replaced by another of its dataset, before it
    ends."""
    allow_missing_annotations: Switch = False
    """Train a torchvision detector, whose loss cannot leave out a class, on datasets that do not label all classes: it
    learns the unlabelled objects there as background."""
    balance: Literal["none", "oversample", "undersample"] = "none"
    """Classification and interaction: draw all classes equally often, in epochs as long as the largest (oversample) or
    the smallest (undersample) class asks for."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of the training images."""
    pairs: PairsConfig = PairsConfig()
    """Interaction: which pairs of people are looked at."""

    @property
    def exif(self) -> Exif:
        """How images outside of the datasets are read: as all datasets are, upright where these differ."""
        return "ignore" if all(d.exif == "ignore" for d in (*self.train, *self.val)) else "apply"

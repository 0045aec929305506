"""`data`: what the datasets, the augmentation and the loading of every task have in common."""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ddptrain.config.section import FileName, Section
from ddptrain.system.printable import listing

Exif = Literal["apply", "ignore"]
Cache = Literal["none", "ram", "disk"]


class DatasetConfig(Section):
    """One dataset of the mixture."""

    name: FileName
    """Short name of the dataset, a plain file name that is unique in its list. It appears in logs, metrics and errors."""
    format: str
    """Layout of the annotations on disk; `own` is one that only a task of your own knows."""
    root: str = Field(min_length=1)
    """Folder of the dataset, relative to the working directory."""
    split: str | None = None
    """Part of the dataset that is read. VOC: `ImageSets/Main/<split>.txt`; YOLO: the key of data.yaml or the folder; COCO:
    `annotations/instances_<split>.json`; VisDrone: `VisDrone2019-DET-<split>` or `-VID-`; UAVDT: `M_attr/<split>` or a
    list of sequences `<split>.txt`; AU-AIR: a list of images `<split>.txt`; CSV: `<split>.csv`; folder and masks: the
    subfolder; CamVid and ADE20K: train or val; MNIST: train or t10k; JRDB: a list of sequences `<split>.txt`."""
    annotations: str | None = None
    """File or folder of the annotations, relative to `root`, where it is not at the format's usual place."""
    images: str | None = None
    """Folder of the images, relative to `root`, where it is not at the format's usual place."""
    exif: Exif = "apply"
    """How images, masks and depth maps are read whose EXIF header (JPEG, PNG, WebP) or orientation tag (TIFF) says that their
    pixels are stored rotated or mirrored: `apply` turns them upright, as viewers and most annotation tools do; `ignore` reads
    them as they are stored, for annotations that were made in those pixels."""
    names: tuple[str, ...] | None = None
    """The dataset's own class names in the order of its ids, where nothing stores them (YOLO without data.yaml) or where
    only numbers are stored instead. Where the dataset or its format knows its classes, only those names are accepted."""
    share: float | None = Field(default=None, ge=0)
    """Relative share of the drawn samples, regardless of the dataset's size (2 and 1 mean 2:1). Default: its number of
    images, or of tiles. It has no effect in `val`."""
    loss_weight: float = Field(default=1.0, gt=0, le=1000)
    """Factor on the loss of its samples; what the loss is divided by stays as it is. A sample that is made of several images
    (mosaic, mixup, cutmix) has the mean of their factors, in classification by their parts. It has no effect in `val`."""
    rename: dict[str, str] = {}
    """Class of the dataset → class of the run, as in `{Car: car}`; `"*"` stands for all its classes that are not mentioned
    elsewhere."""
    ignore: tuple[str, ...] = ()
    """Classes of the dataset whose boxes become ignore regions: neither right nor wrong, in the loss and in the metric."""
    drop: tuple[str, ...] = ()
    """Classes of the dataset whose boxes are left out, as if they were not in the file."""
    annotated: Literal["all"] | tuple[str, ...] | None = None
    """Classes of the run that this dataset labels; a class outside them is unknown there, not absent. Default: the
    classes that its names map to."""


class HoldoutDataset(DatasetConfig):
    """A dataset that may come without splits."""

    holdout: float | None = Field(default=None, gt=0, lt=1)
    """Fraction of a dataset without splits that is held out: drawn by file name, it is the split `val`, and the rest is
    `train`. In classification it is this fraction of each class. Not for video: neighbouring frames would be in both."""


class AugmentConfig(Section):
    """Augmentation of training images; every draw is a function of the seed and the sample's position in the stream."""

    scale: float = Field(default=0.5, ge=0, lt=1)
    """The zoom is drawn from 1 - scale to 1 + scale."""
    translate: float = Field(default=0.1, ge=0, le=1)
    """The shift is drawn from ± translate, as a fraction of the image size."""
    rotate: float = Field(default=0.0, ge=0, le=180)
    """The rotation is drawn from ± rotate, in degrees."""
    shear: float = Field(default=0.0, ge=0, le=45)
    """The shear along each axis is drawn from ± shear, in degrees."""
    hflip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip."""
    vflip: float = Field(default=0.0, ge=0, le=1)
    """Probability of an upside-down flip."""
    hsv_h: float = Field(default=0.015, ge=0, le=0.5)
    """The hue is turned by an angle that is drawn from ± hsv_h, as a fraction of the colour circle."""
    hsv_s: float = Field(default=0.7, ge=0, le=1)
    """The saturation gain is drawn from 1 ± hsv_s."""
    hsv_v: float = Field(default=0.4, ge=0, le=1)
    """The brightness gain is drawn from 1 ± hsv_v."""
    rot90: float = Field(default=0.0, ge=0, le=1)
    """Probability of a turn by 90, 180 or 270 degrees, each equally likely; 0.75 makes all four directions equally likely."""
    perspective: float = Field(default=0.0, ge=0, le=0.4)
    """The image is seen at an angle: along each axis the scale at its two ends is 1 - k and 1 + k, with k drawn from
    ± perspective."""
    grey: float = Field(default=0.0, ge=0, le=1)
    """Probability that the image loses its colour."""
    blur: float = Field(default=0.0, ge=0, le=1)
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the network's input."""
    jpeg: float = Field(default=0.0, ge=0, le=1)
    """Probability that the network's input is compressed as a JPEG and decoded again."""
    jpeg_quality: tuple[int, int] = (30, 90)
    """Lowest and highest quality of that JPEG, from 1 to 100."""
    cutout: float = Field(default=0.0, ge=0, le=1)
    """Probability that a rectangle of 2 to 20 % of the image is covered with grey. Masks are void there, depth is unknown, and
    what is left of an object that is more than 60 % hidden becomes an ignore region."""

    @field_validator("blur_sigma", "jpeg_quality")
    @classmethod
    def _spans(cls, value: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        least, most = {"blur_sigma": (0.1, 20), "jpeg_quality": (1, 100)}[str(info.field_name)]
        if not least <= value[0] <= value[1] <= most:
            raise ValueError(f"must be two numbers from {least} to {most}, the lower one first")
        return value


class MixingAugment(AugmentConfig):
    """Augmentation of training images, which may make one sample of several; every draw is a function of the seed and the
    sample's position in the stream."""

    mixup: float = Field(default=0.0, ge=0, le=1)
    """Probability that a second image (in detection, perhaps a mosaic) is blended in."""
    cutmix: float = Field(default=0.0, ge=0, le=1)
    """Probability that a box of a second image is pasted in, instead of mixup; the two add up to 1 at most. In detection,
    what is left of an object that is more than 60 % hidden becomes an ignore region."""
    close_epochs: float = Field(default=10.0, ge=0)
    """Number of epochs at the end of the run without mosaic, mixup, cutmix and copy_paste."""
    pool: int | None = Field(default=16, ge=8)
    """Mosaic, mixup and cutmix take their other images from the same block of this many samples of the stream, so that none is
    decoded again: fastest where it is the micro batch; null takes them from the whole epoch."""

    @model_validator(mode="after")
    def _chances(self) -> "MixingAugment":
        check_chances(mixup=self.mixup, cutmix=self.cutmix)
        return self


def check_chances(**chances: float) -> None:
    """Refuse probabilities of mutually exclusive augmentations that add up to more than 1."""
    if sum(chances.values()) > 1:
        names, values = listing(list(chances)), " + ".join(f"{value:g}" for value in chances.values())
        raise ValueError(f"{names}: {values} is more than 1; only one of them applies to a sample, so lower one")


DATASETS: Any = Field(min_length=1)


class DataConfig(Section):
    """Datasets, image size, loading and augmentation."""

    train: tuple[DatasetConfig, ...] = DATASETS
    """The datasets of the training mixture."""
    val: tuple[DatasetConfig, ...] = DATASETS
    """The datasets on which the run is evaluated, each on its own and all together."""
    image_size: int = Field(default=640, ge=32, multiple_of=32)
    """Side of the square network input, in pixels; images are letterboxed to it."""
    overfit: int | None = Field(default=None, ge=1)
    """A check, for `ddptrain train --overfit N`: learn only this many of the training images, by the shares of their datasets,
    and evaluate on the same ones instead of data.val (detection and classification)."""
    samples_per_epoch: int | None = Field(default=None, ge=1)
    """Number of samples that are drawn per epoch. Default: the number of training images and tiles."""
    workers: int = Field(default=2, ge=0, le=256)
    """Number of loader processes per rank; 0 loads in the training process. The samples do not depend on it."""
    cache: Cache = "none"
    """Where the pixels of all images are kept, decoded at the size that is needed, for all ranks of a machine together: `disk`,
    a file in the cache folder that later runs use, too (`ddptrain pack` makes it ahead); `ram`, memory that is freed when
    the run ends; `none`, nowhere. The samples do not depend on it."""
    on_fault: Literal["error", "drop"] = "error"
    """What happens at the start to a faulty image or label: `error` ends the run with a list of them; `drop` omits
    and counts them."""
    max_bad_samples: int = Field(default=100, ge=0)
    """How often a training sample that is drawn may turn out unreadable before the run ends: one that is drawn in every epoch
    counts in each. It is replaced by another sample of its dataset."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of the training images."""

    @model_validator(mode="after")
    def _names_and_shares(self) -> "DataConfig":
        for part in ("train", "val"):
            names = [d.name for d in getattr(self, part)]
            for i, name in enumerate(names):
                if names.count(name) > 1:
                    raise ValueError(f"{part}.{i}.name: {name} is listed twice; give each dataset its own name")
        given = [d.name for d in self.train if d.share is not None]
        if given and len(given) < len(self.train):
            other = next(d.name for d in self.train if d.share is None)
            raise ValueError(f"train: {given[0]} has a share and {other} has none; give every dataset a share, or none")
        if given and not any(d.share for d in self.train):
            raise ValueError("train: all shares are 0; at least one must be above 0")
        return self

    @property
    def exif(self) -> Exif:
        """How images outside of the datasets are read: as all datasets are, and upright where these differ."""
        return "ignore" if all(d.exif == "ignore" for d in (*self.train, *self.val)) else "apply"

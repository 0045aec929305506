"""The augmentation that only detection has."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from ddptrain.config.data import MixingAugment, check_chances
from ddptrain.config.multi_scale import MultiScale

MIXING = ("mosaic", "mosaic9", "mixup", "cutmix", "copy_paste")
"""Keys of `data.augment` that end `close_epochs` before the end of the run; all but the last one take in other images."""


class DetectionAugment(MixingAugment):
    mosaic: float = Field(default=0.0, ge=0, le=1)
    """Probability that four images are put together in one."""
    mosaic9: float = Field(default=0.0, ge=0, le=1)
    """Probability that nine images are put together, each half as large as in a mosaic of four; with `mosaic` 1 at most."""
    copy_paste: float = Field(default=0.0, ge=0, le=1)
    """Probability that some of an image's own small objects (below 32² pixels of the network's input) are pasted a second
    time at free places of the image: the pixels of their masks where the dataset has masks (COCO), else of their boxes."""
    copy_paste_objects: int = Field(default=5, ge=1, le=100)
    """Largest number of objects that are pasted into an image; the number is drawn from 1 to this."""

    multi_scale: float | tuple[int, int] = 0.0
    """Multi-scale training: every step has a size of its own, drawn by its number from data.image_size ± this part of it, or
    from `[lowest, highest]` in pixels; sizes are multiples of the coarsest of `model.strides`."""

    @field_validator("multi_scale")
    @classmethod
    def _part(cls, value: MultiScale) -> MultiScale:
        if not isinstance(value, tuple) and not 0 <= value < 1:
            raise ValueError("must be a number ≥ 0 and < 1, a part of data.image_size; or [lowest, highest] in pixels")
        return value

    @model_validator(mode="after")
    def _images(self) -> DetectionAugment:
        check_chances(mosaic=self.mosaic, mosaic9=self.mosaic9)
        if self.pool is not None and self.pool < self.together:
            raise ValueError(
                f"pool: {self.pool} is too few for a mosaic of {self.together} images; must be ≥ {self.together}, or null"
            )
        return self

    @property
    def together(self) -> int:
        """Images in the largest mosaic that may be drawn, 1 without any."""
        return 9 if self.mosaic9 else 4 if self.mosaic else 1

"""Small real datasets written to disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddptrain.config.detection import DetectionDataset


@pytest.fixture
def save_image() -> Callable[..., Path]:
    """Writes an image of noise (so that a JPEG of it is long), makes its folder, returns its path."""

    def save(path: Path, size: tuple[int, int] = (100, 80), **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(path, **options)
        return path

    return save


@pytest.fixture
def voc_set(tmp_path: Path, save_image: Callable[..., Path]) -> Callable[..., DetectionDataset]:
    """Writes a VOC set of two images of 100×80 pixels; `objects` is the XML of those in a, b has one car."""

    def make(objects: str, split: str = "a\nb\n", **config: object) -> DetectionDataset:
        root = tmp_path / "voc"
        for name in ("Annotations", "ImageSets/Main"):
            (root / name).mkdir(parents=True, exist_ok=True)
        size = "<size><width>100</width><height>80</height></size>"
        for stem, body in (("a", objects), ("b", voc_object("car", 10, 10, 30, 30))):
            save_image(root / "JPEGImages" / f"{stem}.jpg")
            text = f"<annotation>\n<filename>{stem}.jpg</filename>{size}\n{body}</annotation>\n"
            (root / "Annotations" / f"{stem}.xml").write_text(text)
        (root / "ImageSets/Main/train.txt").write_text(split)
        return DetectionDataset(name="v", format="voc", root=str(root), **{"split": "train", **config})

    return make


def voc_object(name: str, *corners: object, difficult: int = 0) -> str:
    """The XML of one object, on one line."""
    box = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>\n"


@pytest.fixture(name="voc_object")
def _voc_object() -> Callable[..., str]:
    return voc_object


@pytest.fixture
def yolo_set(tmp_path: Path, save_image: Callable[..., Path]) -> Callable[..., DetectionDataset]:
    """Writes a YOLO set with folders `<split>/images` and a data.yaml of two classes; `files` maps a stem to the text
    of its label file, or None for none."""

    def make(files: dict[str, str | None], yaml: str = "names: [car, bus]\nnc: 2\n", **config: object) -> DetectionDataset:
        root = tmp_path / "yolo"
        (root / "train" / "labels").mkdir(parents=True)
        for stem, text in files.items():
            save_image(root / "train" / "images" / f"{stem}.png")
            if text is not None:
                (root / "train" / "labels" / f"{stem}.txt").write_text(text)
        (root / "data.yaml").write_text(yaml)
        return DetectionDataset(name="y", format="yolo", root=str(root), **{"split": "train", **config})

    return make

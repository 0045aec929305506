"""The pixels of a task's datasets, packed into files (`data.cache`)."""

from __future__ import annotations

from typing import Any

from ddptrain.data.formats.cache import cache_folder
from ddptrain.data.packed.build import Talk, Where, provide
from ddptrain.data.packed.file import size_of_file
from ddptrain.data.samples.base import ImageSamples
from ddptrain.data.samples.plans import IMAGES
from ddptrain.errors import UserError
from ddptrain.system.printable import counted
from ddptrain.tasks.base import Task


def cache_pixels(task: Task, where: Where, talk: Talk) -> list[str]:
    """Let the samples of a task that has read its datasets take their pixels from packed files, which are made where they are
    not there.

    Returns:
        Lines about what is packed, and what is not.

    Raises:
        UserError: there is no room for them, they cannot be written, or the samples are not `ImageSamples`.
    """
    parts = _samples(task)
    plans = {(part, plan.kind, plan.dataset): plan for part, (samples, _) in parts.items() for plan in samples.plans()}
    names = {key: "-".join([parts[key[0]][1][key[2]], key[0], *([] if key[1] == IMAGES else [key[1]])]) for key in plans}
    packed = provide({names[key]: plan for key, plan in plans.items()}, where, cache_folder(), talk)
    for part, (samples, _) in parts.items():
        samples.use({(kind, dataset): packed[names[own, kind, dataset]] for own, kind, dataset in plans if own == part})
    total = sum(size_of_file(plan) for plan in plans.values())
    place = "memory" if where == "ram" else str(cache_folder() / "pixels")
    notes = [f"data.cache={where}: {counted(len(plans), 'file')} of {total / 1e9:.2f} GB with decoded pixels in {place}"]
    notes += [
        f"data.cache={where}: {part} {name} is not packed: its images are in memory already"
        for part, (_, datasets) in parts.items()
        for dataset, name in enumerate(datasets)
        if (part, IMAGES, dataset) not in plans
    ]
    return notes


def _samples(task: Task) -> dict[str, tuple[ImageSamples[Any], list[str]]]:
    """Samples and names of the datasets of both parts."""
    found = {}
    data = task.config.data
    for part, samples, datasets in (("train", task.train, data.train), ("val", task.val_samples, data.val)):
        if not isinstance(samples, ImageSamples):
            raise UserError(
                f"data.cache: {type(samples).__name__} of {task.config.task} is not an ImageSamples, the "
                "only kind that can be cached; set data.cache=none"
            )
        found[part] = (samples, [d.name for d in datasets])
    return found

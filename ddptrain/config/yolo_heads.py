"""Which keys of the loss and the model go with which head and assigner of the package's own detector."""

from typing import Any

from ddptrain.config.rules import Rule
from ddptrain.config.yolo import YoloConfig

ASSIGNERS = {
    "anchor_free": ("task_aligned", "simota", "rule"),
    "dual": ("task_aligned",),
    "anchor_based": ("rule", "simota"),
}
"""Assigners of each head; the first is its default."""


def head_of(run: Any) -> str | None:
    """The head of a run's detector; None of a torchvision detector."""
    return run.model.head if isinstance(run.model, YoloConfig) else None


def assigner_of(run: Any) -> str | None:
    """The assigner that a run takes; None with a torchvision detector."""
    head = head_of(run)
    return None if head is None else run.loss.assigner or ASSIGNERS[head][0]


def check_assigner(run: Any) -> None:
    """Raise ValueError where the head has no such assigner."""
    head, assigner = head_of(run), run.loss.assigner
    if head is not None and assigner is not None and assigner not in ASSIGNERS[head]:
        raise ValueError(
            f"loss.assigner: {assigner} does not work with model.head={head}; allowed: {' or '.join(ASSIGNERS[head])}"
        )


def _not_anchors(run: Any) -> bool:
    return head_of(run) in ("anchor_free", "dual")


HEAD_RULES = (
    Rule(
        "loss.dfl",
        "model.reg_max above 1 and model.head=anchor_free or dual",
        lambda run: isinstance(run.model, YoloConfig) and (run.model.reg_max == 1 or head_of(run) == "anchor_based"),
        "model.reg_max model.head",
    ),
    Rule(
        "model.reg_max model.head_width",
        "model.head=anchor_free or dual",
        lambda run: head_of(run) == "anchor_based",
        "model.head",
    ),
    Rule("model.anchors loss.obj loss.obj_pw loss.anchor_t", "model.head=anchor_based", _not_anchors),
    Rule(
        "loss.iou_t",
        "model.head=anchor_based with loss.assigner=rule",
        lambda run: (head_of(run), assigner_of(run)) != ("anchor_based", "rule"),
        "model.head loss.assigner",
    ),
    Rule(
        "loss.nwd_scale",
        "nwd as loss.box_loss or loss.assign_by",
        lambda run: "nwd" not in (run.loss.box_loss, run.loss.assign_by),
        "loss.box_loss loss.assign_by",
    ),
    Rule(
        "loss.alpha loss.beta",
        "loss.assigner=task_aligned",
        lambda run: assigner_of(run) not in (None, "task_aligned"),
        "loss.assigner",
    ),
    Rule(
        "loss.topk loss.assign_by",
        "loss.assigner=task_aligned or simota",
        lambda run: assigner_of(run) == "rule",
        "loss.assigner",
    ),
)

"""Mask2Former (arXiv 2112.01527) from transformers, which is imported only here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddptrain.config import Mask2FormerConfig
from ddptrain.errors import UserError
from ddptrain.models.class_layers import Layout


class Mask2Former(nn.Module):
    """Mask2Former of transformers as a segmenter of this package: its losses are left out, its queries become pixels.

    Args:
        net: a `Mask2FormerForUniversalSegmentation`.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        net.criterion = nn.Identity()
        for name, parameter in net.named_parameters():
            if ".encoder.swin.layernorm." in name:  # of a classifier, never used here; DDP would wait for its gradient
                parameter.requires_grad_(False)
        self.net = net

    def forward(self, images: Tensor) -> dict[str, Any]:
        """Of images `[B, 3, H, W]`, normalised.

        Returns:
            Training: `classes` and `masks`, a list each with the decoder's predictions, the last one first: logits `[B, Q,
            classes + 1]` (the last class is none) and `[B, Q, H / 4, W / 4]`. Eval: `out`, float32 `[B, classes, H, W]`:
            the logarithm of each class's sum of mask times class probability over the queries.
        """
        output = self.net(pixel_values=images, output_auxiliary_logits=self.training)
        if self.training:
            others = output.auxiliary_logits
            return {
                "classes": [output.class_queries_logits, *(o["class_queries_logits"] for o in others)],
                "masks": [output.masks_queries_logits, *(o["masks_queries_logits"] for o in others)],
            }
        # 1e-12 is 0 in half precision
        with torch.autocast(images.device.type, enabled=False):
            masks = output.masks_queries_logits.float()
            masks = F.interpolate(masks, size=images.shape[-2:], mode="bilinear", align_corners=False)
            p = output.class_queries_logits.float().softmax(-1)[..., :-1]
            return {"out": torch.einsum("bqc,bqhw->bchw", p, masks.sigmoid()).clamp(min=1e-12).log()}

    def class_layers(self) -> dict[str, Layout]:
        return {"net.class_predictor": Layout(after=1)}


def build_mask2former(config: Mask2FormerConfig, num_classes: int) -> nn.Module:
    """The model with fresh weights, or with those of a folder.

    Raises:
        UserError: transformers is not installed, or the folder does not hold a Mask2Former.
    """
    try:
        import transformers
    except ImportError as e:
        raise UserError(f"model.name: mask2former needs {e.name}; pip install 'ddptrain[transformers]'") from None
    library: Any = transformers
    if config.weights is not None:
        return Mask2Former(_load(library, Path(config.weights), num_classes))
    backbone = library.SwinConfig(
        embed_dim=config.embed_dim,
        depths=list(config.depths),
        num_heads=list(config.heads),
        window_size=config.window,
        drop_path_rate=config.drop_path,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    architecture = library.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=config.hidden,
        mask_feature_size=config.hidden,
        hidden_dim=config.hidden,
        dim_feedforward=config.feedforward,
        encoder_feedforward_dim=max(1, config.feedforward // 2),
        num_attention_heads=config.attention_heads,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        num_queries=config.queries,
        num_labels=num_classes,
    )
    return Mask2Former(_make(lambda: library.Mask2FormerForUniversalSegmentation(architecture)))


def _load(library: Any, folder: Path, num_classes: int) -> Any:
    kind = library.Mask2FormerForUniversalSegmentation
    if not (folder / "config.json").is_file():
        raise UserError(f"model.weights: {folder} holds no config.json; give a folder that save_pretrained wrote")
    try:
        stored = library.AutoConfig.from_pretrained(folder, local_files_only=True)
        if stored.model_type != "mask2former":
            raise ValueError(f"its config.json is of a {stored.model_type}, not of a mask2former")
        # the classes' names go with their number; a class layer of another size is initialized
        options = {"num_labels": num_classes} if stored.num_labels != num_classes else {}
        return _make(
            lambda: kind.from_pretrained(folder, local_files_only=True, ignore_mismatched_sizes=bool(options), **options)
        )
    except (OSError, ValueError, RuntimeError) as e:
        raise UserError(f"model.weights: {folder}: {' '.join(str(e).split())[:200]}") from None


def _make(build: Any) -> Any:
    try:
        return build()
    except ImportError as e:  # of a package that transformers asks for on its own (scipy)
        raise UserError(f"model.name: {' '.join(str(e).split())[:200]}; pip install 'ddptrain[transformers]'") from None

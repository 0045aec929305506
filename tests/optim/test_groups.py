"""Each trainable parameter is in exactly one group, and only weights are decayed."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from ddptrain.config import OptimizerConfig
from ddptrain.errors import UserError
from ddptrain.optim.build import OPTIMIZERS, build_optimizer
from ddptrain.optim.groups import parameter_groups


def names_by_group(model: nn.Module) -> dict[str, set[str]]:
    names = {id(p): n for n, p in model.named_parameters()}
    return {g["name"]: {names[id(p)] for p in g["params"]} for g in parameter_groups(model, 0.1)}


class Mixed(nn.Module):
    """One of each kind of parameter, under names that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.one_output = nn.Conv2d(8, 1, 1)
        self.a = nn.GroupNorm(2, 8)
        self.b = torchvision.models.convnext.LayerNorm2d(8)
        self.frozen_norm = torchvision.ops.FrozenBatchNorm2d(8)
        self.words = nn.Embedding(10, 8)
        self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.class_token = nn.Parameter(torch.zeros(1, 4, 8))
        self.prelu = nn.PReLU(8)
        self.fixed = nn.Linear(8, 8).requires_grad_(False)


def test_kinds() -> None:
    got = names_by_group(Mixed())
    assert got["weight"] == {
        "conv.weight",
        "one_output.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    }
    assert got["norm"] == {"a.weight", "b.weight"}
    assert got["vector"] == {"words.weight", "scale", "class_token", "prelu.weight"}
    assert got["bias"] == {
        "conv.bias",
        "one_output.bias",
        "a.bias",
        "b.bias",
        "attention.in_proj_bias",
        "attention.out_proj.bias",
        "attention.bias_k",
        "attention.bias_v",
    }


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "convnext_tiny", "swin_t", "vit_b_32"])
def test_backbones_decay_only_what_has_two_axes(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    groups = parameter_groups(model, 0.1)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    for group in groups:
        assert group["weight_decay"] == (0.1 if group["name"] == "weight" else 0.0)
        if group["name"] == "weight":
            assert all(p.ndim >= 2 for p in group["params"])
    decayed = names_by_group(model)["weight"]
    assert not [n for n in decayed if "embedding" in n or "token" in n or "layer_scale" in n or "position" in n]


def test_tied_parameter_counts_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    groups = parameter_groups(model, 0.1)
    assert {g["name"]: len(g["params"]) for g in groups} == {"weight": 1, "bias": 2}


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    model = Mixed()
    grouped = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_nothing_to_train_is_reported() -> None:
    with pytest.raises(UserError, match="no trainable parameter"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.0)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_learns(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 1))
    x = torch.randn(64, 4)
    y = x.sum(1, keepdim=True)
    config = OptimizerConfig(name=name, lr=0.01, momentum=0.9, weight_decay=0.0)
    optimizer = build_optimizer(config, model, 64)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_late_gradient(name: str) -> None:
    """A layer that gets its first gradient after the first step is trained from then on."""
    model = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    optimizer = build_optimizer(OptimizerConfig(name=name), model, 16)
    before = model[1].weight.clone()
    for layer in (model[0], model[1]):
        optimizer.zero_grad()
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert not torch.equal(model[1].weight, before)


def test_sgd_is_nesterov_and_decays_by_batch() -> None:
    """One weight, gradient 1: the first step is lr · (g + m·g) with g = 1 + decay · w."""
    for scale, decay in ((True, 0.5), (False, 0.25)):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 2.0)
        config = OptimizerConfig(
            name="sgd", lr=0.1, momentum=0.9, weight_decay=0.25, scale_weight_decay=scale, nominal_batch=64
        )
        optimizer = build_optimizer(config, model, 128)
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        assert model.weight.item() == pytest.approx(2.0 - 0.1 * 1.9 * (1 + decay * 2.0), rel=1e-6)


def test_momentum_zero_is_plain_sgd() -> None:
    model = nn.Linear(1, 1, bias=False)
    start = model.weight.item()
    optimizer = build_optimizer(OptimizerConfig(name="sgd", lr=0.1, momentum=0.0, weight_decay=0.0), model, 64)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(start - 0.1)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_momentum_is_the_first_beta(name: str) -> None:
    optimizer = build_optimizer(OptimizerConfig(name=name, momentum=0.85), nn.Linear(1, 1), 64)
    assert {g["betas"] for g in optimizer.param_groups} == {(0.85, 0.999)}

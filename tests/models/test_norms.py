"""Batch norm over ranks on the CPU is batch norm over their samples together."""

from __future__ import annotations

import pytest
import torch
from support import Ranks
from torch import Tensor, nn

from ddptrain import distributed
from ddptrain.models.norms import CpuSyncBatchNorm


def sides() -> tuple[nn.BatchNorm2d, Tensor]:
    """A batch norm with uneven weights, and a batch of four samples far from zero mean."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, momentum=0.3)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    return norm, torch.randn(4, 5, 3, 2) * torch.arange(1, 6).view(1, 5, 1, 1) + 7


def outcome(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and gradients under a loss that looks at every value in its own way."""
    x = x.clone().requires_grad_()
    y = norm(x)
    weight = torch.linspace(-1, 1, 120).view(4, 5, 3, 2)[: len(x)] if len(x) == 4 else None
    if weight is None:
        rank = distributed.rank_and_size()[0]
        weight = torch.linspace(-1, 1, 120).view(4, 5, 3, 2)[2 * rank : 2 * rank + 2]
    (weight * y.square()).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad]


def _over_two_ranks(file: str) -> None:
    world = distributed.discover("cpu")
    with distributed.process_group(world, 60):
        plain, x = sides()
        norm = CpuSyncBatchNorm(5, momentum=0.3)
        norm.load_state_dict(plain.state_dict())
        found = outcome(norm, x[2 * world.rank : 2 * world.rank + 2])
        for p in norm.parameters():
            assert p.grad is not None
            found.append(distributed.all_reduce_sum(p.grad, "the test"))
        found += [norm.running_mean, norm.running_var, norm.num_batches_tracked]  # type: ignore[list-item]
        torch.save(found, f"{file}.{world.rank}")


def test_two_ranks_are_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ranks = Ranks(2, _over_two_ranks, str(tmp_path / "found"))
    assert ranks.wait() == [0, 0], ranks.text
    halves = [torch.load(tmp_path / f"found.{r}", weights_only=True) for r in range(2)]
    plain, x = sides()
    expected = outcome(plain, x)
    for i in range(2):
        torch.testing.assert_close(torch.cat([h[i] for h in halves]), expected[i], rtol=1e-5, atol=1e-5)
    expected = [p.grad for p in plain.parameters() if p.grad is not None]
    expected += [plain.running_mean, plain.running_var, plain.num_batches_tracked]  # type: ignore[list-item]
    for half in halves:
        for a, b in zip(half[2:], expected):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_alone_it_is_batch_norm_and_keeps_its_digits() -> None:
    """Against float64, on channels-last images far from zero mean, where torch's kernel for the CPU loses digits."""
    plain, x = sides()
    norm = CpuSyncBatchNorm(5, momentum=0.3)
    norm.load_state_dict(plain.state_dict())
    for a, b in zip(outcome(norm, x), outcome(plain, x)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="4D"):
        norm(x[0])
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(x[:1, :, :1, :1])
    torch.testing.assert_close(norm.eval()(x), plain.eval()(x), rtol=1e-5, atol=1e-5)
    torch.manual_seed(0)
    far = (torch.randn(12, 32, 8, 8) + 100).to(memory_format=torch.channels_last)
    truth = nn.BatchNorm2d(32).double()(far.double())
    ours, torchs = (float((m(far) - truth).detach().abs().max()) for m in (CpuSyncBatchNorm(32), nn.BatchNorm2d(32)))
    assert ours < 5e-5
    assert ours < torchs  # when this fails, torch has become exact: let one rank use its kernel again

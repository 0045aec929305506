"""Batch norm over ranks is batch norm over their samples together, and frozen norms keep the type of their inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from host_waits import HostWaits
from support import Ranks
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ddptrain import distributed
from ddptrain.models.norms import FrozenBatchNorm, SyncBatchNorm, keep_types


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
    weight = torch.linspace(-1, 1, 120, device=x.device).view(4, 5, 3, 2)[: len(x)] if len(x) == 4 else None
    if weight is None:
        rank = distributed.rank_and_size()[0]
        weight = torch.linspace(-1, 1, 120, device=x.device).view(4, 5, 3, 2)[2 * rank : 2 * rank + 2]
    (weight * y.square()).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad]


def _over_two_ranks(file: str) -> None:
    world = distributed.discover("cpu")
    with distributed.process_group(world, 60):
        plain, x = sides()
        norm = SyncBatchNorm(5, momentum=0.3)
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
    compare_with_one(tmp_path)


def compare_with_one(folder: Path) -> None:
    """What two ranks have saved is what one batch norm makes of both batches."""
    halves = [torch.load(folder / f"found.{r}", weights_only=True) for r in range(2)]
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
    norm = SyncBatchNorm(5, momentum=0.3)
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
    ours, torchs = (float((m(far) - truth).detach().abs().max()) for m in (SyncBatchNorm(32), nn.BatchNorm2d(32)))
    assert ours < 5e-5
    assert ours < torchs  # when this fails, torch has become exact: let one rank use its kernel again


def _reference_kernels() -> torch.library.Library:
    """The kernels of CUDA's batch norm over ranks, for the CPU, as torch documents what they compute."""
    rest, shape = (0, 2, 3), (1, -1, 1, 1)

    def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        return x.mean(rest), (x.var(rest, correction=0) + eps).rsqrt()

    def gather(x, means, scales, running_mean, running_var, momentum, eps, counts):  # type: ignore[no-untyped-def]
        part, n = counts[:, None] / counts.sum(), counts.sum()
        mean = (means * part).sum(0)
        var = ((scales**-2 - eps + (means - mean) ** 2) * part).sum(0)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * n / (n - 1), momentum)
        return mean, (var + eps).rsqrt()

    def element(x, weight, bias, mean, scale, eps):  # type: ignore[no-untyped-def]
        return (x - mean.view(shape)) * (scale * weight).view(shape) + bias.view(shape)

    def reduce(dy, x, mean, scale, weight, *wanted):  # type: ignore[no-untyped-def]
        centred = x - mean.view(shape)
        sum_dy, sum_dy_xmu = dy.sum(rest), (dy * centred).sum(rest)
        return sum_dy, sum_dy_xmu, sum_dy_xmu * scale, sum_dy

    def back(dy, x, mean, scale, weight, sum_dy, sum_dy_xmu, counts):  # type: ignore[no-untyped-def]
        n = counts.sum()
        factor = (sum_dy_xmu / n * scale**2).view(shape)
        return (dy - (sum_dy / n).view(shape) - (x - mean.view(shape)) * factor) * (scale * weight).view(shape)

    kernels = torch.library.Library("aten", "IMPL")
    names = ("stats", "gather_stats_with_counts", "elemt", "backward_reduce", "backward_elemt")
    for name, kernel in zip(names, (stats, gather, element, reduce, back)):
        kernels.impl(f"batch_norm_{name}", kernel, "CPU")
    return kernels


def _by_kernels(file: str) -> None:
    world = distributed.discover("cpu")
    kernels = _reference_kernels()
    with distributed.process_group(world, 60):
        plain, x = sides()
        norm = SyncBatchNorm(5, momentum=0.3)
        norm.load_state_dict(plain.state_dict())
        norm.forward = norm._by_kernels  # type: ignore[method-assign]  # the way that it takes on a GPU
        with HostWaits() as waits:
            found = outcome(norm, x[2 * world.rank : 2 * world.rank + 2].to(memory_format=torch.channels_last))
        assert not waits.lines
        for p in norm.parameters():
            assert p.grad is not None
            found.append(distributed.all_reduce_sum(p.grad, "the test"))
        found += [norm.running_mean, norm.running_var, norm.num_batches_tracked]  # type: ignore[list-item]
        torch.save(found, f"{file}.{world.rank}")
    del kernels


def test_the_kernels_of_a_gpu_are_put_together_to_the_same_and_nothing_waits(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ranks = Ranks(2, _by_kernels, str(tmp_path / "found"))
    assert ranks.wait() == [0, 0], ranks.text
    compare_with_one(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks for a GPU")
def test_a_gpus_own_kernels_are_batch_norm() -> None:
    """One rank: the statistics are its own."""
    plain, x = sides()
    norm = SyncBatchNorm(5, momentum=0.3)
    norm.load_state_dict(plain.state_dict())
    norm.cuda().forward = norm._by_kernels  # type: ignore[method-assign]
    for a, b in zip(outcome(norm, x.cuda()), outcome(plain, x)):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-4)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name].cpu(), value, rtol=1e-4, atol=1e-4)


def test_a_frozen_norm_keeps_the_type_of_its_input_and_the_bits_of_float32() -> None:
    torch.manual_seed(0)
    norm, theirs, x = FrozenBatchNorm(4), FrozenBatchNorm2d(4), torch.randn(2, 4, 3, 3)
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = torch.rand(4) + 0.5
        for module in (norm, theirs):
            setattr(module, name, value)
    assert torch.equal(norm(x), theirs(x))
    half = norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), theirs(x.bfloat16()), rtol=1e-2, atol=1e-2)
    module = nn.Sequential(FrozenBatchNorm2d(4))
    keep_types(module)
    assert module(x.bfloat16()).dtype == torch.bfloat16

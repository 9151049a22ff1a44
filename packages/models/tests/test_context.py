"""Pooling against torch's; PSP and ASPP against loops over regions and cells."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.models import ASPP, FPN, PSP, Projection
from semiseg.models.context import pool

BINS = (1, 2, 3, 6)


@given(st.integers(1, 45), st.integers(1, 45))
@settings(deadline=None, max_examples=50)
def test_pool_equals_adaptive_average_pooling_forwards_and_backwards(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    for n, ours in zip(BINS, pool(x, BINS), strict=True):
        theirs = F.adaptive_avg_pool2d(x, n)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
        direction = torch.randn_like(theirs)
        gradients = [torch.autograd.grad((y * direction).sum(), x, retain_graph=True)[0] for y in (ours, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pool_neither_overflows_nor_drifts_in_half_precision(dtype: torch.dtype) -> None:
    x = (torch.rand(1, 2, 65, 129) * 20 + 10).to(dtype)  # a sum over the image would be 168,000; fp16 ends at 65,504
    for n, ours in zip(BINS, pool(x, BINS), strict=True):
        torch.testing.assert_close(ours.double(), F.adaptive_avg_pool2d(x.double(), n), rtol=1e-2, atol=0)


def test_psp_has_the_published_number_of_parameters() -> None:
    psp = PSP(2048, 512)
    assert sum(p.numel() for p in psp.parameters()) == 23_073_792
    shapes = {name: list(p.shape) for name, p in psp.named_parameters()}
    assert shapes["fuse.0.weight"] == [512, 4096, 3, 3]
    assert [shapes[f"branches.{i}.0.weight"] for i in range(4)] == [[512, 2048, 1, 1]] * 4
    assert list(PSP(320, 128).state_dict()["fuse.0.weight"].shape) == [128, 640, 3, 3]


def test_psp_equals_a_plain_double_loop() -> None:
    psp = PSP(8, 5).double().eval()
    weights = dict(psp.named_parameters())
    x = torch.randn(2, 8, 7, 11, dtype=torch.float64)
    parts = [x]
    for k, n in enumerate(BINS):
        pooled = torch.empty(2, 8, n, n, dtype=torch.float64)
        for i in range(n):
            for j in range(n):
                rows = slice(i * 7 // n, math.ceil((i + 1) * 7 / n))
                columns = slice(j * 11 // n, math.ceil((j + 1) * 11 / n))
                pooled[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
        y = F.relu(F.conv2d(pooled, weights[f"branches.{k}.0.weight"]) / math.sqrt(1 + 1e-5))  # a fresh batch norm
        parts.append(F.interpolate(y, size=(7, 11), mode="bilinear", align_corners=False))
    expected = F.relu(F.conv2d(torch.cat(parts, 1), weights["fuse.0.weight"], padding=1) / math.sqrt(1 + 1e-5))
    torch.testing.assert_close(psp(x), expected, rtol=1e-6, atol=1e-7)


def test_psp_rejects_a_training_batch_of_one() -> None:
    psp = PSP(8, 4)
    with pytest.raises(ValueError, match=r"PSP averages .*use at least 2 images per process, norm=\"frozen\""):
        psp(torch.rand(1, 8, 5, 5))
    assert psp.eval()(torch.rand(1, 8, 5, 5)).shape == (1, 4, 5, 5)


def test_aspp_has_the_published_number_of_parameters() -> None:
    for channels, rates in ((256, (12, 24, 36)), (64, (6, 12))):
        aspp = ASPP(4096, channels, rates)
        branches = (2 + 9 * len(rates)) * 4096 * channels + (2 + len(rates)) * 2 * channels
        expected = branches + (2 + len(rates)) * channels * channels
        assert sum(p.numel() for p in aspp.parameters()) == expected
    assert sum(p.numel() for p in ASPP(4096, 256).parameters()) == 30_738_944


def test_aspp_equals_a_plain_loop_over_cells_and_taps() -> None:
    aspp = ASPP(6, 4, (2, 5)).double().eval()
    weights = dict(aspp.named_parameters())
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    branches = [torch.einsum("oc,bchw->bohw", weights["point.0.weight"][:, :, 0, 0], x)]
    for k, rate in enumerate((2, 5)):
        y = torch.zeros(2, 4, 7, 9, dtype=torch.float64)
        for row in range(7):
            for column in range(9):
                for i in range(3):
                    for j in range(3):
                        v, u = row + rate * (i - 1), column + rate * (j - 1)
                        if 0 <= v < 7 and 0 <= u < 9:
                            y[:, :, row, column] += x[:, :, v, u] @ weights[f"atrous.{k}.0.weight"][:, :, i, j].t()
        branches.append(y)
    average = x.mean((2, 3)) @ weights["image.0.weight"][:, :, 0, 0].t()
    branches.append(average[:, :, None, None].expand(-1, -1, 7, 9))
    branches = [F.relu(branch / math.sqrt(1 + 1e-5)) for branch in branches]  # a fresh batch norm
    expected = torch.einsum("oc,bchw->bohw", weights["fuse.weight"][:, :, 0, 0], torch.cat(branches, 1))
    torch.testing.assert_close(aspp(x), expected)
    assert expected.min() < 0


def test_aspp_rejects_a_training_batch_of_one() -> None:
    aspp = ASPP(8, 4)
    with pytest.raises(ValueError, match=r"ASPP averages .*use at least 2 images per process, norm=\"frozen\""):
        aspp(torch.rand(1, 8, 5, 5))
    assert aspp.eval()(torch.rand(1, 8, 5, 5)).shape == (1, 4, 5, 5)


def test_projection_makes_signed_features_non_negative() -> None:
    z = Projection(8, 4)(torch.randn(2, 8, 5, 5) - 1)
    assert z.shape == (2, 4, 5, 5)
    assert z.min() == 0 and z.max() > 0


def test_fpn_equals_a_loop_over_cells() -> None:
    """Bilinear values by hand: cell (y, x) of the fine grid lies at ((y + 0.5) / f - 0.5) of a level f times as coarse."""
    fpn = FPN((5, 7), (4, 12), channels=6, width=3).double().eval()
    weights = dict(fpn.named_parameters())
    fine, coarse = torch.randn(2, 5, 8, 10, dtype=torch.float64), torch.randn(2, 7, 3, 4, dtype=torch.float64)
    scale = math.sqrt(1 + 1e-5)  # a fresh batch norm

    def at(own: torch.Tensor, place: float, axis: int) -> torch.Tensor:
        last = own.shape[axis] - 1
        below = min(max(math.floor(place), 0), last)
        share = min(max(place - below, 0), 1) if place > 0 else 0.0
        return own.select(axis, below) * (1 - share) + own.select(axis, min(below + 1, last)) * share

    own = F.relu(torch.einsum("oc,bchw->bohw", weights["levels.0.0.weight"][..., 0, 0], fine) / scale)
    other = F.relu(torch.einsum("oc,bchw->bohw", weights["levels.1.0.weight"][..., 0, 0], coarse) / scale)
    raised = torch.stack([
        torch.stack([at(at(other, (y + 0.5) / 3 - 0.5, 2), (x + 0.5) / 3 - 0.5, 2) for x in range(10)], -1)
        for y in range(8)
    ], -2)  # fmt: skip
    both = torch.cat([own, raised], 1)
    expected = F.relu(F.conv2d(both, weights["fuse.0.weight"], padding=1) / scale)
    torch.testing.assert_close(fpn([fine, coarse]), expected, rtol=1e-10, atol=1e-12)
    assert sum(p.numel() for p in fpn.parameters()) == 3 * (5 + 7) + 9 * 2 * 3 * 6 + 2 * (3 + 3 + 6)
    with pytest.raises(ValueError, match="multiples of the first"):
        FPN((5, 7), (8, 12))

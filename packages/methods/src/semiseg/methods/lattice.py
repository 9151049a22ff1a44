"""Gaussian sums over millions of points in a few dimensions: the permutohedral lattice (Adams, Baek and Davis 2010)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class Lattice:
    """sum_j exp(-|f_i - f_j|^2 / 2) v_j, approximately, for every point i of a set at once, including j = i.

    features: [b, n, d], in units of the kernel's standard deviation; the b sets are independent. Calling it with
    values [b, n, C] of the features' dtype returns sums [b, n, C]. Time and memory grow with b * n * d, not with
    the square of n: each point is splatted onto the d + 1 corners of its simplex, the corners are blurred along
    d + 1 axes, and each point sums its corners. Building costs as much as about ten calls, so build it once.

    As in the authors' dense CRF code, corners that no point touches are left out of the blur: in sparse spaces, far
    neighbours weigh less than in the formula, so divide sums by the sums of ones.
    """

    def __init__(self, features: Tensor) -> None:
        sets, points, dimensions = features.shape
        self.shape = sets, points
        corners = dimensions + 1
        keys, weights, steps = _corner_keys(features.reshape(-1, dimensions), sets)
        ordered, order = keys.flatten().sort()
        first = torch.cat([ordered.new_ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])
        vertices = ordered[first]
        count = len(vertices)  # row `count` of all values is 0: a missing neighbour

        ids = torch.empty_like(order)
        ids[order] = first.cumsum(0) - 1
        self.corners = ids.view(corners, -1).T.int().contiguous()
        self.weights = weights.T.contiguous()
        self.splat_points = (order % keys.shape[1]).int()
        self.splat_weights = weights.flatten()[order]
        bounds = torch.nonzero(first).flatten()
        self.splat_starts = torch.cat([bounds, bounds.new_tensor([len(order)])]).int()
        self.neighbours = [_neighbours(vertices, step) for step in steps]
        self.blur_weights = weights.new_tensor([1, 0.5, 0.5]).expand(count + 1, 3).contiguous()
        self.scale = 1 / (1 + 2.0**-dimensions)  # of the blur, so that sums are close to the Gaussian's

    def __call__(self, values: Tensor) -> Tensor:
        flat = values.reshape(-1, values.shape[-1])
        found = _weighted_sums(flat, self.splat_points, self.splat_weights, self.splat_starts)
        for three in self.neighbours:
            found = _weighted_sums(found, three, self.blur_weights)
        found = _weighted_sums(found, self.corners, self.weights)
        return (found * self.scale).view(*self.shape, -1)


def _weighted_sums(rows: Tensor, chosen: Tensor, weights: Tensor, starts: Tensor | None = None) -> Tensor:
    """Weighted sums of chosen rows: torch's fastest gather on a CPU (17 x index_add_ at C = 21), deterministic on a GPU."""
    return F.embedding_bag(chosen, rows, starts, mode="sum", per_sample_weights=weights)


def _corner_keys(features: Tensor, sets: int) -> tuple[Tensor, Tensor, list[int]]:
    """Each point's simplex: keys of its corners [d + 1, n], barycentric weights [d + 1, n], and key steps of the axes.

    A key packs the set's number and a corner's first d coordinates into one integer, so that a step along an axis is
    one addition and sorting keys sorts corners.
    """
    count, d = features.shape
    position = _elevate(features)
    rounded = (position / (d + 1)).round_()
    excess = rounded.sum(0).long()
    rounded *= d + 1
    offset = position - rounded
    rank = torch.empty_like(offset, dtype=torch.long)
    order = offset.argsort(dim=0, descending=True, stable=True)
    rank.scatter_(0, order, torch.arange(d + 1, device=features.device)[:, None].expand(-1, count))
    rank += excess  # rounding may leave the plane where coordinates sum to 0: move the outermost ones back
    back = (rank < 0).long().sub_((rank > d).long()).mul_(d + 1)
    rank += back
    rounded += back

    by_rank = torch.empty_like(offset).scatter_(0, rank, (position - rounded) / (d + 1)).flip(0)
    weights = torch.cat([by_rank[:1] + 1 - by_rank[-1:], by_rank[1:] - by_rank[:-1]])

    origin = rounded[:d].long()
    least = origin.amin(1) - 2 * (d + 1)  # corners and their neighbours are at most this far away
    spans = (origin.amax(1) + 2 * (d + 1) - least + 1).tolist()
    strides = [math.prod(spans[axis + 1 :]) for axis in range(d)]
    if math.prod(spans) * sets >= 2**63:
        raise ValueError(
            f"features of {d} dimensions spread over {' x '.join(map(str, spans))} cells in {sets} set(s), more than "
            "64-bit keys can number; use larger standard deviations (spatial_xy, bilateral_xy, bilateral_rgb)"
        )
    stride = torch.tensor([*strides, 0], device=features.device)
    first = ((origin - least[:, None]) * stride[:d, None]).sum(0)
    first += torch.arange(sets, device=features.device).repeat_interleave(count // sets) * math.prod(spans)
    by_rank = torch.empty_like(rank).scatter_(0, rank, stride[:, None].expand(-1, count)).flip(0)
    further = (sum(strides) - (d + 1) * by_rank[:d]).cumsum_(0)
    keys = torch.cat([first[None], first + further])
    return keys, weights, [(d + 1) * step - sum(strides) for step in [*strides, 0]]


def _elevate(features: Tensor) -> Tensor:
    """Features [n, d] in the lattice's plane, [d + 1, n]: their sum is 0 (the paper's E, p. 5).

    Scaled by the blur's standard deviation in that plane, sqrt(2/3) (d + 1) (p. 6).
    """
    d = features.shape[1]
    basis = torch.ones(d + 1, d, dtype=torch.float64).triu()
    basis[1:].diagonal().copy_(-torch.arange(1, d + 1))
    lengths = torch.tensor([math.sqrt((i + 1) * (i + 2)) for i in range(d)], dtype=torch.float64)
    return (basis / lengths * math.sqrt(2 / 3) * (d + 1)).to(features) @ features.T


def _neighbours(vertices: Tensor, step: int) -> Tensor:
    """Each vertex and its two neighbours along an axis, [m + 1, 3]; m where there is none."""
    count = len(vertices)
    place = torch.searchsorted(vertices, vertices + step).clamp_(max=count - 1)
    there = vertices[place] == vertices + step
    three = torch.full((count + 1, 3), count, dtype=torch.int32, device=vertices.device)
    own = torch.arange(count, dtype=torch.int32, device=vertices.device)
    three[:count, 0] = own
    three[:count, 1] = place.int().masked_fill_(~there, count)
    three[place[there], 2] = own[there]
    return three

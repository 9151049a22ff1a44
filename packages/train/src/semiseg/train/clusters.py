"""Where the cluster assumption holds: distances between neighbours in an image and in an encoder's activations.

CCT (CVPR 2020), section 3.1 and Fig. 2: low-density regions should follow class borders. In the input they do not, in the
hidden activations they do. `contrast` and `separation` measure how closely.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from semiseg.data import DataError, ShardSet, Taxonomy, contact_sheet, overlay
from semiseg.models import Encoder
from semiseg.train.score.images import find_images, read

PATCH = 20  # pixels, as in the paper
SHOWN = 6  # images in the figure
_CHANNELS = 64  # upsampled at a time: all 2,048 of a ResNet at 360x480 would take 1.4 GB


@dataclass(frozen=True, kw_only=True)
class DistanceMaps:
    """One image, class ids [h, w] if it has labels, and its two maps of distances, float32 [h, w]."""

    name: str
    image: Image.Image
    ids: np.ndarray | None
    input: Tensor
    hidden: Tensor


def neighbour_distance(x: Tensor, *, patch: int = 1) -> Tensor:
    """[C, h, w] -> float64 [h, w]: mean Euclidean distance of each location to its 8 neighbours (fewer at the edges).

    A location is described by the `patch` x `patch` pixels around it (an even patch reaches patch / 2 up and left, one less
    down and right); edges are replicated. The squared distance between a patch and its shift is a box sum of
    (x - shifted x)^2: exact, and as cheap for 20 x 20 pixels as for one.
    """
    return _mean_of_roots(_squared([x], patch), *x.shape[1:])


def hidden_distance(features: Tensor, size: tuple[int, int]) -> Tensor:
    """`neighbour_distance` of activations [C, h, w] upsampled to `size` bilinearly, some channels at a time."""
    parts = (
        F.interpolate(part[None], size, mode="bilinear", align_corners=False)[0] for part in features.split(_CHANNELS)
    )
    return _mean_of_roots(_squared(parts, 1), *size)


def near_borders(ids: Tensor, within: int, *, ignore: int = 255) -> tuple[Tensor, Tensor]:
    """Class ids [h, w] -> bool (border, inside): up to `within` pixels from a change of class, and farther.

    A pixel on either side of a change is 1 away; diagonals count as one. Ignored pixels, and those that near, are neither.
    """
    known = ids != ignore
    change = torch.zeros_like(known)
    for dim in (0, 1):
        before, after = ids.narrow(dim, 0, ids.shape[dim] - 1), ids.narrow(dim, 1, ids.shape[dim] - 1)
        differs = (before != after) & (before != ignore) & (after != ignore)
        change.narrow(dim, 0, ids.shape[dim] - 1).logical_or_(differs)
        change.narrow(dim, 1, ids.shape[dim] - 1).logical_or_(differs)
    clear = ~_widened(~known, within)
    border = _widened(change, within - 1)
    return border & clear, ~border & clear


def separation(distance: Tensor, ids: np.ndarray, within: int) -> float | None:
    """Probability that a pixel on a border has a larger distance than one inside (ties count half); None as for `contrast`.

    0.5 is chance, 1 is perfect; unlike the ratio, it depends neither on the scale of the distances nor on their zero point.
    """
    border, inside = near_borders(torch.from_numpy(ids.astype(np.int64)), within)
    if not border.any() or not inside.any():
        return None
    others = distance[inside].sort().values
    below = torch.searchsorted(others, distance[border]) + torch.searchsorted(others, distance[border], right=True)
    return float(below.double().mean() / 2 / len(others))


def contrast(distance: Tensor, ids: np.ndarray, within: int) -> float | None:
    """Mean distance on class borders divided by that inside classes; None for an image without borders or without insides."""
    border, inside = near_borders(torch.from_numpy(ids.astype(np.int64)), within)
    if not border.any() or not inside.any():
        return None
    return float(distance[border].mean() / distance[inside].mean())


@torch.inference_mode()
def measure(encoder: Encoder, samples: Iterable[tuple[str, Image.Image, np.ndarray | None]]) -> Iterator[DistanceMaps]:
    """The distances of every (name, image, class ids or None). Raises DataError for an image of one row or column."""
    for name, image, ids in samples:
        if min(image.size) < 2:
            raise DataError(f"{name} is {image.width}x{image.height}: a pixel needs neighbours; remove this image")
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        size = (image.height, image.width)
        hidden = hidden_distance(encoder(pixels[None]).deep[0], size)
        shallow = neighbour_distance(pixels.double() / 255, patch=PATCH)
        yield DistanceMaps(name=name, image=image, ids=ids, input=shallow.float(), hidden=hidden.float())


def open_samples(
    places: Sequence[str], count: int, taxonomy: str | None = None
) -> tuple[list[tuple[str, Image.Image, np.ndarray | None]], Taxonomy | None]:
    """`count` evenly spaced samples of a shard set, with its labels if it has any, or of image files and folders."""
    if len(places) == 1 and ("://" in places[0] or (Path(places[0]) / "manifest.json").is_file()):
        shards = ShardSet(places[0])
        if not len(shards):
            raise DataError(f"{places[0]} has no samples; give a split that has some")
        classes = None
        if shards.manifest.labeled:
            classes = shards.taxonomy(taxonomy or _taxonomy_of(shards))
        samples = [shards[index] for index in _spread(len(shards), count)]
        return [
            (sample.key, sample.image, None if classes is None or sample.label is None else classes.map(sample.label))
            for sample in samples
        ], classes
    files, _ = find_images([Path(place) for place in places])
    chosen = [files[index] for index in _spread(len(files), count)]
    return [(str(file.name), read(file).original, None) for file in chosen], None


def summarise(images: Sequence[DistanceMaps], within: int) -> dict:
    """How well both maps separate borders from insides: mean and spread over the images that have both, and every image."""
    summary: dict = {"images": len(images), "patch": PATCH, "border": within, "each": {}}
    metrics = {"border_over_inside": contrast, "separation": separation}
    for maps in images:
        if maps.ids is not None and contrast(maps.input, maps.ids, within) is not None:
            summary["each"][maps.name] = {
                kind: {name: metric(getattr(maps, kind), maps.ids, within) for name, metric in metrics.items()}
                for kind in ("input", "hidden")
            }
    for kind in ("input", "hidden") if summary["each"] else ():
        summary[kind] = {}
        for name in metrics:
            values = [found[kind][name] for found in summary["each"].values()]
            sd = statistics.stdev(values) if len(values) > 1 else None
            summary[kind][name] = {"mean": statistics.fmean(values), "sd": sd, "n": len(values)}
    return summary


def draw(images: Sequence[DistanceMaps], taxonomy: Taxonomy | None, encoder: str) -> Image.Image:
    """The figure: image, the two maps (dark near, bright far, each on its own scale), classes if there are labels."""
    labeled = taxonomy is not None and any(maps.ids is not None for maps in images)
    rows = []
    for maps in (images[index] for index in _spread(len(images), SHOWN)):
        cells = [maps.image, _painted(maps.input), _painted(maps.hidden)]
        if labeled and taxonomy is not None:
            cells.append(None if maps.ids is None else overlay(maps.image, maps.ids, taxonomy, opacity=0.7))
        rows.append(cells)
    titles = ["image", f"input: {PATCH}x{PATCH} patches", f"hidden: {encoder}", *["classes"] * labeled]
    return contact_sheet(rows, titles=titles)


def _taxonomy_of(shards: ShardSet) -> str:
    """The first taxonomy for these labels: of those written with the shards, else of those installed."""
    known = [*shards.taxonomies, *Taxonomy.all().values()]
    names = [taxonomy.name for taxonomy in known if taxonomy.raw_space == shards.manifest.raw_space]
    if not names:
        raise DataError(
            f"{shards.url}: no installed taxonomy reads its labels ('{shards.manifest.raw_space}'); install the package of "
            "this data set"
        )
    return names[0]


def _squared(parts: Iterable[Tensor], patch: int) -> dict[tuple[int, int], Tensor]:
    """(dy, dx) -> squared distance of each patch to its shift, [h, w] where both exist; for half of all shifts.

    `parts`: channels [c, h, w], whose squares are summed.
    """
    sums: dict[tuple[int, int], Tensor] = {}
    before, after = patch // 2, patch - 1 - patch // 2
    for part in parts:
        x = F.pad(part[None], (before, after, before, after), mode="replicate")[0] if patch > 1 else part
        height, width = x.shape[1:]
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            here = x[:, : height - dy, max(0, -dx) : width - max(0, dx)]
            there = x[:, dy:, max(0, dx) : width - max(0, -dx)]
            square = (here - there).square().sum(0).double()
            sums[dy, dx] = sums[dy, dx] + square if (dy, dx) in sums else square
    return {shift: _box(square, patch) for shift, square in sums.items()}


def _box(x: Tensor, side: int) -> Tensor:
    """[h, w] -> sums over all side x side windows."""
    if side == 1:
        return x
    rows = F.avg_pool2d(x[None, None], (side, 1), stride=1)
    return F.avg_pool2d(rows, (1, side), stride=1)[0, 0] * side**2


def _mean_of_roots(squared: dict[tuple[int, int], Tensor], height: int, width: int) -> Tensor:
    total = torch.zeros(height, width, dtype=torch.float64)
    count = torch.zeros_like(total)
    for (dy, dx), square in squared.items():
        root = square.clamp_min(0).sqrt().cpu()
        for top, left in ((0, max(0, -dx)), (dy, max(0, dx))):  # a distance counts at both of its ends
            window = slice(top, top + height - dy), slice(left, left + width - abs(dx))
            total[window] += root
            count[window] += 1
    return total / count


def _widened(mask: Tensor, by: int) -> Tensor:
    if by <= 0:
        return mask
    return F.max_pool2d(mask[None].float(), 2 * by + 1, stride=1, padding=by)[0] > 0


def _spread(length: int, count: int) -> list[int]:
    return sorted({int(index) for index in np.linspace(0, length - 1, min(count, length)).round()})


# Points of matplotlib's viridis, from dark blue to yellow, so that the figure does not need matplotlib.
_RAMP = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)


def _painted(distance: Tensor) -> np.ndarray:
    """[h, w] -> uint8 [h, w, 3]; the brightest hundredth is clipped, otherwise single pixels would darken all others."""
    values = distance.numpy()
    low, high = np.quantile(values, (0.01, 0.99))
    at = np.clip((values - low) / max(high - low, 1e-12), 0, 1) * (len(_RAMP) - 1)
    return np.stack([np.interp(at, range(len(_RAMP)), _RAMP[:, c]) for c in range(3)], -1).round().astype(np.uint8)

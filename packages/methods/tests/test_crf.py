import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from semiseg.methods import DenseCrf, crf, unary_from_labels, unary_from_probabilities
from semiseg.methods.lattice import Lattice


def scene(height: int, width: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Discs on a noisy background, uint8 [3, h, w], and their labels, [h, w] of 0..2."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    labels = torch.zeros(height, width, dtype=torch.long)
    for label in (1, 2, 1):
        centre = torch.rand(2, generator=generator) * torch.tensor([height, width])
        labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (min(height, width) / 4) ** 2] = label
    colours = torch.tensor([[90.0, 120, 80], [170, 80, 70], [60, 90, 170]])
    image = colours[labels] + 6 * torch.randn(height, width, 3, generator=generator)
    return image.clamp(0, 255).byte().permute(2, 0, 1), labels


def blocks(labels: Tensor, side: int) -> Tensor:
    """Coarse labels, as class activation maps give them."""
    height, width = labels.shape
    return labels[::side, ::side].repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width]


def mean_field(unary: np.ndarray, image: np.ndarray, normalization: str, iterations: int) -> np.ndarray:
    """The definition, pair by pair of pixels: unary [C, h, w], image [3, h, w] -> [C, h, w]."""
    _, height, width = image.shape
    places = list(np.ndindex(height, width))
    kernels = []
    for weight, xy, rgb in [(0.6, 3, None), (2, 50, 5)]:
        kernel = np.empty((len(places), len(places)))
        for i, (y, x) in enumerate(places):
            for j, (v, u) in enumerate(places):
                distance = ((y - v) ** 2 + (x - u) ** 2) / xy**2
                if rgb:
                    distance += ((image[:, y, x] - image[:, v, u]) ** 2).sum() / rgb**2
                kernel[i, j] = math.exp(-distance / 2)
        mass = kernel.sum(1)
        if normalization in ("before", "symmetric"):
            kernel = kernel / (mass if normalization == "before" else np.sqrt(mass))[None, :]
        if normalization in ("after", "symmetric"):
            kernel = kernel / (mass if normalization == "after" else np.sqrt(mass))[:, None]
        kernels.append(weight * kernel)
    scores = -unary.reshape(len(unary), -1)
    marginals = np.exp(scores) / np.exp(scores).sum(0)
    for _ in range(iterations):
        messages = scores + sum(marginals @ kernel.T for kernel in kernels)
        powers = np.exp(messages - messages.max(0))
        marginals = powers / powers.sum(0)
    return marginals.reshape(unary.shape)


@pytest.mark.parametrize("normalization", crf.NORMALIZATIONS)
def test_the_exact_form_equals_brute_force(normalization: str):
    images = torch.stack([scene(12, 12, seed=0)[0], scene(12, 12, seed=1)[0]]).double()
    images /= 8  # similar colours, so that distant pixels matter
    unary = 3 * torch.rand(2, 3, 12, 12, dtype=torch.float64)
    dense = DenseCrf(
        images,
        spatial_weight=0.6,  # with the defaults, every pixel is certain
        bilateral_weight=2,
        normalization=normalization,
        dtype=torch.float64,
    )
    found = dense(unary)
    for image, energies, marginals in zip(images.numpy(), unary.numpy(), found.numpy(), strict=True):
        expected = mean_field(energies, image, normalization, 10)
        np.testing.assert_allclose(marginals, expected, atol=1e-6, rtol=0)
        if normalization != "none":  # whose sums over 144 pixels make every pixel certain too
            assert ((expected > 0.1) & (expected < 0.9)).any()


def test_the_exact_form_in_pieces_equals_that_in_one(monkeypatch: pytest.MonkeyPatch):
    images = scene(14, 11, seed=2)[0][None]
    unary = torch.rand(1, 2, 14, 11)
    complete = DenseCrf(images)(unary)
    monkeypatch.setattr(crf._ExactSums, "entries", 154 * 20)
    pieces = DenseCrf(images)
    for kernel in pieces.kernels:
        assert isinstance(kernel.sums, crf._ExactSums) and kernel.sums.complete is None
    torch.testing.assert_close(pieces(unary), complete)


def test_the_lattice_is_near_the_exact_form():
    image, truth = scene(60, 60, seed=3)
    labels = blocks(truth, 8)
    exact, lattice = (
        DenseCrf(image[None], form=form)(unary_from_labels(labels[None], 3))[0] for form in ("exact", "lattice")
    )
    assert (exact.argmax(0) == lattice.argmax(0)).float().mean() > 0.99
    assert (exact - lattice).abs().mean() < 0.01
    assert (exact.argmax(0) == truth).float().mean() > 0.99  # and both improve on the labels
    assert (labels == truth).float().mean() < 0.95


def lattice_sums(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The lattice of Adams et al. with a dictionary of corners, point by point."""
    d = points.shape[1]
    simplices, corners = [], {}
    for point, value in zip(points, values, strict=True):
        scaled = [x * math.sqrt(2 / 3) * (d + 1) / math.sqrt((i + 1) * (i + 2)) for i, x in enumerate(point)]
        place = np.array([sum(scaled[i:]) - (i * scaled[i - 1] if i else 0) for i in range(d + 1)])
        nearest = np.round(place / (d + 1)) * (d + 1)
        while (
            excess := round(nearest.sum() / (d + 1))
        ) != 0:  # back to the plane, by the coordinate with the largest error
            error = (nearest - place) * np.sign(excess)
            nearest[error.argmax()] -= (d + 1) * np.sign(excess)
        order = np.argsort(nearest - place)  # by decreasing distance from the corner of colour 0
        offset = np.append((place - nearest)[order], (place - nearest)[order[0]] - (d + 1))
        simplex = []
        for colour in range(d + 1):
            weight = (offset[d - colour] - offset[d + 1 - colour]) / (d + 1)
            corner = nearest + colour  # in all coordinates, less d + 1 in the last ones
            corner[order[d + 1 - colour :]] -= d + 1
            simplex.append((tuple(corner.astype(int)), weight))
        simplices.append(simplex)
        for key, weight in simplex:
            corners[key] = corners.get(key, 0) + weight * value
    for axis in range(d + 1):
        step = np.full(d + 1, -1)
        step[axis] += d + 1
        corners = {
            key: value + sum(corners.get(tuple(key + sign * step), 0) for sign in (1, -1)) / 2
            for key, value in corners.items()
        }
    return np.array([sum(w * corners[key] for key, w in simplex) for simplex in simplices]) / (1 + 2.0**-d)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_the_lattice_equals_one_with_a_dictionary(dimensions: int):
    points = torch.randn(2, 60, dimensions, dtype=torch.float64) * 2
    values = torch.rand(2, 60, 3, dtype=torch.float64)
    for i, found in enumerate(Lattice(points)(values)):
        np.testing.assert_allclose(found, lattice_sums(points[i].numpy(), values[i].numpy()), atol=1e-9)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_lattice_means_are_near_gaussian_means(dimensions: int):
    points = torch.rand(1, 600, dimensions, dtype=torch.float64) * 3
    weights = torch.exp(-(torch.cdist(points, points) ** 2) / 2)
    expected = weights @ points / weights.sum(2, keepdim=True)
    lattice = Lattice(points)
    found = lattice(points) / lattice(torch.ones(1, 600, 1, dtype=torch.float64))
    assert (found - expected).std() < 0.2 * expected.std()


def test_images_of_a_batch_are_independent():
    images = torch.stack([scene(70, 66, seed=seed)[0] for seed in (4, 5)])
    unary = torch.rand(2, 3, 70, 66)
    together = DenseCrf(images)(unary)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], DenseCrf(images[i : i + 1])(unary[i : i + 1]))


def test_autocast_changes_nothing():
    images, unary = scene(70, 66, seed=4)[0][None], torch.rand(1, 3, 70, 66)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = DenseCrf(images)(unary)
    assert torch.equal(inside, DenseCrf(images)(unary))


def test_unknown_pixels_take_the_label_that_fits():
    image, truth = scene(40, 40, seed=6)
    labels = truth.clone()
    labels[torch.rand(40, 40) < 0.7] = 255
    refined = DenseCrf(image[None]).refine(labels[None], 3)[0]
    assert refined.dtype == torch.uint8
    assert (refined == truth).float().mean() > 0.98


def test_unary_energies():
    unary = unary_from_labels(torch.tensor([[[2, 255]]]), 3, 0.7)
    torch.testing.assert_close(
        unary[0, :, 0].exp().reciprocal(), torch.tensor([[0.15, 1 / 3], [0.15, 1 / 3], [0.7, 1 / 3]])
    )
    assert unary_from_labels(torch.tensor([[[0, 255]]]), 1).tolist() == [[[[0, 0]]]]
    probabilities = torch.tensor([0.0, 1e-5, 0.5, 1.0])
    torch.testing.assert_close(unary_from_probabilities(probabilities).exp(), torch.tensor([1e5, 1e5, 2, 1]))


def test_agrees_with_pydensecrf_on_real_images(test_data: Path):
    """The released settings on ten VOC images, from labels in blocks of 16 pixels."""
    why = "NO pydensecrf to compare with: pip install pydensecrf2"
    dense = pytest.importorskip("pydensecrf.densecrf", reason=why)
    their_unary = pytest.importorskip("pydensecrf.utils", reason=why).unary_from_labels
    from PIL import Image

    folder = next(test_data.glob("VOCdevkit/VOC2012"))
    agreements = []
    for path in sorted((folder / "SegmentationClass").glob("*.png"))[:10]:
        image = np.array(Image.open(folder / "JPEGImages" / f"{path.stem}.jpg").convert("RGB"))
        truth = np.array(Image.open(path))
        ids, places = np.unique(np.where(truth == 255, 0, truth), return_inverse=True)
        labels = blocks(torch.from_numpy(places.reshape(truth.shape)), 16)
        height, width = truth.shape
        theirs = dense.DenseCRF2D(width, height, len(ids))
        theirs.setUnaryEnergy(their_unary(labels.numpy(), len(ids), gt_prob=0.7, zero_unsure=False))
        theirs.addPairwiseGaussian(sxy=3, compat=3)
        theirs.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image, compat=10)
        expected = torch.tensor(np.array(theirs.inference(10))).argmax(0).view(height, width)
        found = DenseCrf(torch.from_numpy(image).permute(2, 0, 1)[None]).refine(labels[None], len(ids))[0]
        assert (expected != labels).float().mean() > 0.01  # otherwise the agreement means nothing
        agreements.append((found == expected).float().mean())
    assert len(agreements) == 10
    assert min(agreements) >= 0.98


def test_mistakes_are_named():
    image = torch.zeros(1, 3, 6, 6, dtype=torch.uint8)
    with pytest.raises(ValueError, match="did you mean 'lattice'"):
        DenseCrf(image, form="latice")
    with pytest.raises(ValueError, match="'spatial_xy': 0"):
        DenseCrf(image, spatial_xy=0)
    with pytest.raises(ValueError, match="expected RGB images"):
        DenseCrf(image[0])
    with pytest.raises(ValueError, match=r"expected \[1, classes, 6, 6\]"):
        DenseCrf(image)(torch.zeros(1, 2, 5, 6))
    with pytest.raises(ValueError, match="labels contain 3"):
        unary_from_labels(torch.tensor([[[3]]]), 3)
    with pytest.raises(ValueError, match="confidence=1"):
        unary_from_labels(torch.tensor([[[0]]]), 2, 1.0)
    with pytest.raises(ValueError, match="larger standard deviations"):
        DenseCrf(torch.randint(0, 256, (1, 3, 80, 80)), bilateral_xy=1e-3, bilateral_rgb=1e-3)

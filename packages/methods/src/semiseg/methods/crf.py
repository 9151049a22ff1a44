"""Fully connected (dense) CRF: labels that follow the edges of the image (Krähenbühl and Koltun, NeurIPS 2011).

Mean field with Potts labels and two Gaussian kernels, one of position ("spatial"), one of position and colour
("bilateral"). Defaults are the settings of CCT's authors. Definitions follow the CRF's authors' own code, known in
Python as pydensecrf, so results can be compared: each kernel is normalised, and a pixel is also its own neighbour.
"""

import math

import torch
from torch import Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.float32 import without_autocast
from semiseg.methods.lattice import Lattice
from semiseg.methods.losses import IGNORE

NORMALIZATIONS = ("symmetric", "before", "after", "none")
FORMS = ("auto", "exact", "lattice")
EXACT_PIXELS = 4096  # form "auto" is exact up to this many pixels


class DenseCrf:
    """A dense CRF over a batch of images: build it once, then call it with any number of unary energies.

    images: RGB in 0..255, [b, 3, h, w], any dtype; everything is computed on its device.
    spatial_*, bilateral_*: standard deviations in pixels (xy) and grey levels (rgb), and Potts weights; a kernel with
    weight 0 is left out.
    normalization: of a kernel K with row sums s. "symmetric" K_ij / sqrt(s_i s_j), "before" K_ij / s_j, "after"
    K_ij / s_i, "none" K_ij.
    form: "exact" sums over all pairs of pixels, "lattice" approximates that (`Lattice`) in time linear in the pixels,
    "auto" is exact up to 4,096 pixels. The exact form keeps b h^2 w^2 numbers per kernel if these are at most 2^24
    (64 MB); otherwise it recomputes them at each iteration, in pieces of that size.
    dtype: of the computation, torch.float32 or torch.float64.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        spatial_xy: float = 3.0,
        spatial_weight: float = 3.0,
        bilateral_xy: float = 50.0,
        bilateral_rgb: float = 5.0,
        bilateral_weight: float = 10.0,
        normalization: str = "symmetric",
        form: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_choice("DenseCrf(normalization=...)", normalization, NORMALIZATIONS)
        check_choice("DenseCrf(form=...)", form, FORMS)
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"DenseCrf(images of shape {list(images.shape)}): expected RGB images [b, 3, h, w]")
        deviations = {"spatial_xy": spatial_xy, "bilateral_xy": bilateral_xy, "bilateral_rgb": bilateral_rgb}
        if wrong := {name: value for name, value in deviations.items() if value <= 0}:
            raise ValueError(f"DenseCrf({wrong}): expected standard deviations above 0")
        self.images, self.dtype = images, dtype
        count, _, height, width = images.shape
        exact = form == "exact" or (form == "auto" and height * width <= EXACT_PIXELS)
        colour = images.detach().to(dtype).flatten(2).transpose(1, 2)
        place = _positions(height, width).to(colour).expand(count, -1, -1)
        self.kernels: list[_Kernel] = []
        with without_autocast(images):
            if spatial_weight:
                self.kernels.append(_Kernel(place / spatial_xy, spatial_weight, normalization, exact))
            if bilateral_weight:
                both = torch.cat([place / bilateral_xy, colour / bilateral_rgb], 2)
                self.kernels.append(_Kernel(both, bilateral_weight, normalization, exact))

    @torch.no_grad()
    def __call__(self, unary: Tensor, *, iterations: int = 10) -> Tensor:
        """Marginal probabilities of each pixel, [b, C, h, w], by mean-field iterations from unary energies of that shape.

        An energy is minus the logarithm of a probability: see `unary_from_labels`, `unary_from_probabilities`.
        """
        expected = len(self.images), *self.images.shape[2:]
        if unary.ndim != 4 or (len(unary), *unary.shape[2:]) != expected:
            raise ValueError(
                f"unary energies of shape {list(unary.shape)} for images {list(self.images.shape)}: "
                f"expected [{expected[0]}, classes, {expected[1]}, {expected[2]}]"
            )
        with without_autocast(self.images):
            scores = -unary.to(self.images.device, self.dtype).flatten(2).transpose(1, 2).contiguous()
            marginals = _softmax(scores)
            for _ in range(iterations):
                messages = scores
                for kernel in self.kernels:
                    messages = messages + kernel(marginals)
                marginals = _softmax(messages)
        return marginals.transpose(1, 2).reshape(unary.shape)

    def refine(self, labels: Tensor, classes: int, *, confidence: float = 0.7, iterations: int = 10) -> Tensor:
        """Refined labels: the most probable label of each pixel, uint8 [b, h, w].

        labels: [b, h, w] of 0..classes-1, each right with probability `confidence`; 255 = unknown, decided by the other
        pixels.
        """
        return self(unary_from_labels(labels, classes, confidence), iterations=iterations).argmax(1).byte()


def unary_from_labels(labels: Tensor, classes: int, confidence: float = 0.7) -> Tensor:
    """Unary energies [b, classes, h, w] of labels [b, h, w], each right with probability `confidence`.

    The other classes share the rest equally. Where a label is 255, all classes are equally likely.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"unary_from_labels(confidence={confidence}): expected a probability between 0 and 1")
    labels = labels.long()
    known = labels != IGNORE
    if labels.device.type == "cpu" and bool((wrong := known & ((labels < 0) | (labels >= classes))).any()):
        raise ValueError(f"labels contain {int(labels[wrong][0])}; expected 0..{classes - 1}, or {IGNORE} = unknown")
    if classes == 1:
        return torch.zeros(len(labels), 1, *labels.shape[1:], device=labels.device)
    unary = torch.full((len(labels), classes, *labels.shape[1:]), -math.log((1 - confidence) / (classes - 1)))
    unary = unary.to(labels.device).scatter_(1, labels.where(known, 0)[:, None], -math.log(confidence))
    return unary.where(known[:, None], math.log(classes))


def unary_from_probabilities(probabilities: Tensor) -> Tensor:
    """Unary energies of probabilities of any shape, which are first clamped to at least 1e-5, as in pydensecrf."""
    return -probabilities.clamp(1e-5, 1).log()


class _Kernel:
    """Messages of one Gaussian kernel: weight * (normalised K) applied to marginals [b, n, C]."""

    def __init__(self, features: Tensor, weight: float, normalization: str, exact: bool) -> None:
        self.sums = _ExactSums(features) if exact else Lattice(features)
        self.before: Tensor | float = 1.0
        self.after: Tensor | float = weight
        if normalization == "none":
            return
        mass = self.sums(features.new_ones(*features.shape[:2], 1))
        factor = 1 / (mass.sqrt() if normalization == "symmetric" else mass)
        if normalization != "after":
            self.before = factor
        if normalization != "before":
            self.after = factor * weight

    def __call__(self, marginals: Tensor) -> Tensor:
        return self.sums(marginals * self.before) * self.after


class _ExactSums:
    """sum_j exp(-|f_i - f_j|^2 / 2) v_j over all pairs; shapes as for `Lattice`."""

    entries = EXACT_PIXELS**2  # entries of the kernel in memory at a time

    def __init__(self, features: Tensor) -> None:
        self.features = features
        sets, points, _ = features.shape
        self.rows = max(self.entries // (sets * points), 1)  # computed at a time
        self.complete = self._kernel(slice(0, points)) if self.rows >= points else None

    def __call__(self, values: Tensor) -> Tensor:
        if self.complete is not None:
            return self.complete @ values
        starts = range(0, values.shape[1], self.rows)
        return torch.cat([self._kernel(slice(start, start + self.rows)) @ values for start in starts], 1)

    def _kernel(self, rows: slice) -> Tensor:
        # not by matrix products: at distances of a few tens, their cancellation costs three digits
        distances = torch.cdist(self.features[:, rows], self.features, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.square_().div_(-2).exp_()


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension; on a CPU, torch's takes ten times as long for 2 to 12 entries."""
    powers = (scores - scores.amax(-1, keepdim=True)).exp_()
    return powers.div_(powers.sum(-1, keepdim=True))


def _positions(height: int, width: int) -> Tensor:
    """(x, y) of each pixel in reading order, [1, h w, 2]."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], -1).view(1, -1, 2)

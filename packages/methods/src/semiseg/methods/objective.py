"""The interface of a method: a `Step` goes in, an `Objective` computes, `Losses` come out.

losses = objective(Step(progress=0.3, step=300, parts={"labeled": Part(images, masks)}, encode=..., decode=...))
losses.total.backward()
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Objective(nn.Module):
    """One or more terms of the training loss, with their own parameters (auxiliary decoders); subclass it."""

    needs: frozenset[str] = frozenset()  # the parts of a step it reads, of {"labeled", "unlabeled", "weak"}
    lr_scale: float = 1.0  # learning rate of its parameters relative to the model's, for building the optimizer

    def begin(self, step: Step) -> Callable[[], Losses]:
        """Tell the step which images the student will encode (`Step.plan`); the function returned computes the losses.

        All objectives of a step begin before the first one computes, so that `Step(joint=True)` can encode all their images
        in one batch. `objective(step)` does both. By default, the images of the parts that it needs.
        """
        for part in sorted(self.needs & step.parts.keys()):
            step.plan(part, step.part(part).images)
        return lambda: self(step)

    def forward(self, step: Step) -> Losses:
        raise NotImplementedError


@dataclass
class Losses:
    """Named losses of one step.

    terms: weighted scalars in the graph. diagnostics: detached scalars for logging.
    Averaged over ranks, both are averages over the images of the global batch. `a + b` merges two `Losses` and raises
    ValueError if they share a name; `prefixed` keeps the names of several sets of classes (label spaces) apart.
    """

    terms: dict[str, Tensor] = field(default_factory=dict)
    diagnostics: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The sum of the terms, to back-propagate."""
        if not self.terms:
            return torch.zeros(())
        return torch.stack(list(self.terms.values())).sum()

    def prefixed(self, prefix: str) -> Losses:
        """The same losses with `prefix` before every name."""
        return Losses(
            {prefix + name: value for name, value in self.terms.items()},
            {prefix + name: value for name, value in self.diagnostics.items()},
        )

    def __add__(self, other: Losses) -> Losses:
        shared = sorted((self.terms.keys() & other.terms.keys()) | (self.diagnostics.keys() & other.diagnostics.keys()))
        if shared:
            raise ValueError(
                f"two objectives both report {', '.join(shared)}; give them different names with Losses.prefixed(...)"
            )
        return Losses(self.terms | other.terms, self.diagnostics | other.diagnostics)


class Part:
    """The images of one kind (labeled, unlabeled, weak) in a step.

    images: [b, 3, h, w]. masks: class ids [b, h, w], uint8 or int64, 255 = ignore; or None.
    partners: a second image for each, [b, 3, h, w], to mix it with; None if no objective mixes.
    strong, partners_strong: v strong views of images and partners, [b, v, 3, h, w]: the same crop with distorted colours.
    valid, partners_valid: bool [b, h, w], False where images or partners are padding, which no loss counts; None: all True.
    weights: float32 [b], each image's share of the global batch times the number of ranks (data parallel training takes
    the mean of the ranks' gradients); None means 1/b, which is correct for one process.
    """

    def __init__(
        self,
        images: Tensor,
        masks: Tensor | None = None,
        weights: Tensor | None = None,
        partners: Tensor | None = None,
        valid: Tensor | None = None,
        partners_valid: Tensor | None = None,
        strong: Tensor | None = None,
        partners_strong: Tensor | None = None,
    ) -> None:
        count = len(images)
        if count == 0:
            raise ValueError(
                "a part without images: expected images [b, 3, h, w] with b >= 1; leave the part out of the step"
            )
        if masks is not None and (masks.ndim != 3 or len(masks) != count):
            raise ValueError(
                f"masks of shape {list(masks.shape)} for {count} images: expected class ids [{count}, h, w]"
            )
        if weights is None:
            weights = torch.full((count,), 1 / count, device=images.device)
        if weights.shape != (count,):
            raise ValueError(f"weights of shape {list(weights.shape)} for {count} images: expected [{count}]")
        if partners is not None and partners.shape != images.shape:
            raise ValueError(
                f"partners of shape {list(partners.shape)} for images {list(images.shape)}: expected one per image, of its size"
            )
        for name, own in (("valid", valid), ("partners_valid", partners_valid)):
            if own is not None and (own.dtype != torch.bool or own.shape != (count, *images.shape[2:])):
                raise ValueError(
                    f"{name} is {own.dtype} {list(own.shape)} for images {list(images.shape)}: expected bool "
                    f"{[count, *images.shape[2:]]}"
                )
        for name, views in (("strong", strong), ("partners_strong", partners_strong)):
            if views is not None and (views.ndim != 5 or (count, *images.shape[1:]) != (len(views), *views.shape[2:])):
                raise ValueError(
                    f"{name} of shape {list(views.shape)} for images {list(images.shape)}: expected [{count}, views, "
                    f"{', '.join(map(str, images.shape[1:]))}]"
                )
        self.images = images
        self.masks = masks
        self.partners = partners
        self.valid = valid
        self.partners_valid = partners_valid
        self.strong = strong
        self.partners_strong = partners_strong
        self.weights: Tensor = weights

    def __len__(self) -> int:
        return len(self.images)

    def mixed_valid(self, inside: Tensor) -> Tensor | None:
        """Where images with partners pasted at `inside` > 0, [b, h, w], show no padding, bool [b, h, w]; None if everywhere."""
        if self.valid is None and self.partners_valid is None:
            return None
        everywhere = torch.ones_like(inside, dtype=torch.bool)
        own, other = (everywhere if valid is None else valid for valid in (self.valid, self.partners_valid))
        return torch.where(inside > 0, other, own)

    def average(self, per_image: Tensor) -> Tensor:
        """The mean of one value per image, [b], over the global batch: this rank's contribution, a scalar."""
        return (per_image * self.weights.to(per_image)).sum()


class Features(Protocol):
    """What an encoder returns; it may have more attributes."""

    @property
    def deep(self) -> Tensor:
        """z, [b, Cz, h, w]: the features that are perturbed."""
        ...


class Step:
    """The inputs of all objectives in one training step, computed once and shared.

    progress: share of the training done, in [0, 1]. step: its number, from 0. parts: by kind.
    encode(images) -> an object with `.deep` [b, Cz, h, w]. decode(features) -> logits [b, C, H', W'] of the main
    decoder, at the decoder's resolution. teacher(images) -> logits of the moving-average model, without a gradient; None
    without a teacher. random(name, part) -> one generator per sample, see `random` below; by default
    `seeded(0, step, parts)`.
    joint: encode all planned images (or, if no objective plans, those of all parts) in one batch, so that batch normalisation
    sees them together; they must have the same size. By default each is a separate batch, as in CCT's released code.
    """

    def __init__(
        self,
        *,
        progress: float,
        step: int,
        parts: Mapping[str, Part],
        encode: Callable[[Tensor], Any],  # any type with the attribute of Features
        decode: Callable[..., Tensor],
        teacher: Callable[[Tensor], Tensor] | None = None,
        random: Callable[[str, str], list[torch.Generator]] | None = None,
        joint: bool = False,
    ) -> None:
        self.progress = progress
        self.step = step
        self.parts = dict(parts)
        self.encode = encode
        self.decode = decode
        self._teacher = teacher
        self._random = random or seeded(0, step, self.parts)
        self._joint = joint
        self._planned: dict[str, Tensor] = {}
        self._shared: dict[Hashable, Any] = {}
        self._features: dict[str, Features] = {}
        self._logits: dict[str, Tensor] = {}

    @property
    def labeled(self) -> Part | None:
        return self.parts.get("labeled")

    @property
    def unlabeled(self) -> Part | None:
        return self.parts.get("unlabeled")

    @property
    def weak(self) -> Part | None:
        return self.parts.get("weak")

    def part(self, name: str) -> Part:
        """The part of that name; ValueError if the step has none."""
        if name not in self.parts:
            raise ValueError(
                f"this step has no {name!r} part; it has: {', '.join(self.parts) or 'none'}. Add it to Step(parts=...)"
            )
        return self.parts[name]

    def plan(self, name: str, images: Tensor) -> None:
        """Announce images [n, 3, h, w] whose `features(name)` an objective will use: those of a part, or of a view of one."""
        if self._planned.setdefault(name, images) is not images:
            raise ValueError(f"two objectives plan different images under the name {name!r}; give them different names")

    @property
    def planned(self) -> Mapping[str, Tensor]:
        """The images planned so far, by name."""
        return self._planned

    def shared(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """What objectives with an equal `key` share in this step: built for the first one."""
        if key not in self._shared:
            self._shared[key] = build()
        return self._shared[key]

    def features(self, part: str) -> Features:
        """The features of a part's images or of planned ones; encoded once and shared by all objectives."""
        if part not in self._features:
            images = self._planned[part] if part in self._planned else self.part(part).images
            together = self._planned | ({} if part in self._planned else {part: images})
            if not self._planned:
                together = {name: own.images for name, own in self.parts.items()}
            together = {name: own for name, own in together.items() if name not in self._features}
            features = self.encode(_joint_images(together) if self._joint else images)
            if not hasattr(features, "deep"):
                raise TypeError(
                    f"encode(images) returned {type(features).__name__}; expected an object with a tensor .deep "
                    "[b, Cz, h, w], such as types.SimpleNamespace(deep=z)"
                )
            if self._joint:
                counts = {name: len(own) for name, own in together.items()}
                self._features.update(_split(features, counts))
            else:
                self._features[part] = features
        return self._features[part]

    def logits(self, part: str) -> Tensor:
        """The main decoder's logits for a part or for planned images, at the decoder's resolution; decoded once and shared."""
        if part not in self._logits:
            self._logits[part] = self.decode(self.features(part))
        return self._logits[part]

    def teacher(self, images: Tensor) -> Tensor:
        """The teacher's logits [b, C, H', W'] of images, without a gradient; ValueError without a teacher."""
        if self._teacher is None:
            raise ValueError(
                "this step has no teacher; pass Step(teacher=...), a function that returns the logits of `Teacher(...).model`"
            )
        with torch.no_grad():
            return self._teacher(images)

    def random(self, name: str, part: str = "unlabeled") -> list[torch.Generator]:
        """One new generator per sample of a part; the same (name, part) gives the same numbers again.

        A sample's generator must not depend on the rest of the batch, so that any number of ranks draws the same numbers.
        """
        generators = self._random(name, part)
        if len(generators) != len(self.part(part)):
            raise ValueError(
                f"random({name!r}, {part!r}) returned {len(generators)} generators for {len(self.part(part))} images: "
                "expected one per image"
            )
        return generators


def seeded(seed: int, step: int, parts: Mapping[str, Part]) -> Callable[[str, str], list[torch.Generator]]:
    """Random numbers for a single process: CPU generators keyed by (seed, step, name, part, index in the batch)."""

    def random(name: str, part: str) -> list[torch.Generator]:
        return [_generator(seed, step, name, part, index) for index in range(len(parts[part]))]

    return random


def _joint_images(together: Mapping[str, Tensor]) -> Tensor:
    """All images as one batch."""
    sizes = {name: tuple(images.shape[2:]) for name, images in together.items()}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {height}x{width}" for name, (height, width) in sizes.items())
        raise ValueError(f"Step(joint=True) needs images of one size, found {found}: crop or resize them to one size")
    return torch.cat(list(together.values()))


def _split(features: Any, counts: Mapping[str, int]) -> dict[str, Any]:
    """Features of a joint batch, split into its parts: every tensor with one entry per image is sliced, also in tuples."""
    total, start, split = sum(counts.values()), 0, {}
    for name, count in counts.items():
        split[name] = copy.copy(features)
        for key, value in vars(features).items():
            if isinstance(value, Tensor) and len(value) == total:
                setattr(split[name], key, value[start : start + count])
            elif isinstance(value, tuple) and all(isinstance(own, Tensor) and len(own) == total for own in value):
                setattr(split[name], key, tuple(own[start : start + count] for own in value))
        start += count
    return split


def _generator(*key: int | str) -> torch.Generator:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)

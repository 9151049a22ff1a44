"""The main decoder's prediction as perturbations use it: probabilities, foreground, and objects (components)."""

import itertools
from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.float32 import in_float32

# Rounds of labelling on a GPU, where checking whether it is finished would wait for the device.
ROUNDS = 8


class Prediction:
    """The main prediction of a batch, detached; what is derived from it is computed once for all decoders.

    logits: [b, C, H, W] of the main decoder. foreground: class ids of objects (the others are context).
    probabilities: float32 [b, C, H, W]. classes: int64 [b, H, W], the most probable ones.
    """

    def __init__(self, logits: Tensor, foreground: Collection[int] = ()) -> None:
        unknown = sorted(c for c in foreground if not 0 <= c < logits.shape[1])
        if unknown:
            raise ValueError(
                f"Prediction: foreground class {unknown[0]}; expected ids of its classes, 0..{logits.shape[1] - 1}"
            )
        self.probabilities = in_float32(logits.detach()).softmax(1)
        self.classes = logits.detach().max(1).indices  # on a CPU, argmax takes 4 times as long
        member = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        for class_id in foreground:  # one by one: copying a list of indices to the device would wait for it
            member[class_id] = True
        self._foreground = member[self.classes]
        self._components: dict[tuple[str, int], Components] = {}

    def foreground(self, size: tuple[int, int]) -> Tensor:
        """Where the prediction is foreground, bool [b, 1, h, w], resized to `size` by nearest neighbour."""
        return F.interpolate(self._foreground[:, None].float(), size=size, mode="nearest") > 0.5

    def components(self, per: str = "merged", resolution: int = 128) -> "Components":
        """The foreground's connected components, on a grid whose longer side is at most `resolution`.

        per: "merged" joins neighbours of different foreground classes, "class" keeps them apart.
        """
        check_choice("components(per=...)", per, ("merged", "class"))
        key = (per, resolution)
        if key not in self._components:
            groups = self._foreground.long() * (self.classes + 1 if per == "class" else 1)
            shrink = min(1.0, resolution / max(groups.shape[1:]))
            size = [max(1, round(side * shrink)) for side in groups.shape[1:]]
            groups = F.interpolate(groups[:, None].float(), size=size, mode="nearest")[:, 0].long()
            rounds = None if groups.device.type == "cpu" else ROUNDS
            self._components[key] = Components.of(connected_components(groups, rounds))
        return self._components[key]


@dataclass(frozen=True, eq=False)
class Components:
    """Bounding boxes of connected components, in one slot for each label that a component can have.

    All int64 [b, n], n = h w cells of `size` = (h, w): area, 0 if a slot has no component; top, left (first cell) and
    bottom, right (one past the last). Shapes are fixed, so that nothing waits for a GPU to count components, and a
    component's slot does not depend on other images.
    """

    area: Tensor
    top: Tensor
    left: Tensor
    bottom: Tensor
    right: Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, labels: Tensor) -> "Components":
        """From labels [b, h, w], 0 = no component."""
        height, width = labels.shape[1:]
        slots = labels.flatten(1)
        y = torch.arange(height, device=labels.device)[:, None].expand_as(labels).flatten(1)
        x = torch.arange(width, device=labels.device).expand_as(labels).flatten(1)

        def reduce(values: Tensor, how: str) -> Tensor:
            return empty.scatter_reduce(1, slots, values, how, include_self=False)[:, 1:]

        empty = slots.new_zeros(len(labels), height * width + 1)
        return cls(
            area=empty.scatter_add(1, slots, torch.ones_like(slots))[:, 1:],
            top=reduce(y, "amin"),
            left=reduce(x, "amin"),
            bottom=reduce(y + 1, "amax"),
            right=reduce(x + 1, "amax"),
            size=(height, width),
        )

    def larger_than(self, share: float) -> Tensor:
        """Which slots have a component that covers at least `share` of its image, bool [b, n]."""
        return (self.area > 0) & (self.area >= share * self.size[0] * self.size[1])


def connected_components(groups: Tensor, rounds: int | None = None) -> Tensor:
    """Label the 8-connected components of equal positive ids: int64 [b, h, w] -> int64 [b, h, w], 0 stays 0.

    A component's label is 1 + its largest index y * w + x. Labels spread along an entire straight run at a time, so the
    number of rounds needed is that of a component's turns (2 to 5 in predictions), not its diameter.
    rounds: how many to run; None repeats until nothing changes, which waits for a GPU. A component with more turns than
    rounds is split.
    """
    height, width = groups.shape[1:]
    places = torch.arange(1, height * width + 1, device=groups.device).view(1, height, width)
    labels = places * (groups > 0)
    for _ in itertools.count() if rounds is None else range(rounds):
        before = labels
        for dim in (1, 2):
            labels = _spread_along_runs(labels, groups, dim)
        labels = _spread_to_corners(labels, groups)
        if rounds is None and torch.equal(labels, before):
            break
    return labels


def _spread_along_runs(labels: Tensor, groups: Tensor, dim: int) -> Tensor:
    """Give each cell the largest label of its run of equal groups along `dim`."""
    above = groups.shape[1] * groups.shape[2] + 1  # above every label, so a later run outweighs the earlier ones
    for _ in range(2):  # forwards, then backwards
        run = F.pad(groups.diff(dim=dim) != 0, (0, 0, 1, 0) if dim == 1 else (1, 0)).cumsum(dim)
        labels = (run * above + labels).cummax(dim).values - run * above
        labels, groups = labels.flip(dim), groups.flip(dim)
    return labels


def _spread_to_corners(labels: Tensor, groups: Tensor) -> Tensor:
    """Give each cell the largest label of itself and its four diagonal neighbours of the same group."""
    height, width = groups.shape[1:]
    around_labels, around_groups = F.pad(labels, (1, 1, 1, 1)), F.pad(groups, (1, 1, 1, 1))
    for dy in (0, 2):
        for dx in (0, 2):
            window = slice(None), slice(dy, dy + height), slice(dx, dx + width)
            labels = torch.where(around_groups[window] == groups, labels.maximum(around_labels[window]), labels)
    return labels

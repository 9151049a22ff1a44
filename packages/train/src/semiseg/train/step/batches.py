"""One map-style data set over training steps: item g is this process's share of the global batch of step g.

The state of all data loading is the step number. Positions come from a `semiseg.data.Plan`, augmentation draws its random
numbers from a key (seed, stream, position), so workers, prefetching, the number of processes, kills and resumes cannot
change a pixel of any sample.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from semiseg.data import ClassUniformPlan, DataError, Draw, Plan, Pool, SemisegError, ShardSet, Taxonomy, share
from semiseg.train.step.augment import Augmentation, Augmented
from semiseg.train.step.distortion import Distortion
from semiseg.train.step.loading import load


@dataclass(frozen=True, slots=True)
class Samples:
    """One process's share of one stream's batch.

    images: uint8 [b, 3, h, w]; masks: uint8 class ids [b, h, w], 255 = ignore, or None; weights: float32 [b], each image's
    share of the global batch times the number of processes (DDP takes the mean over processes); positions: where in the
    stream's endless order each sample stands, the key of all its random numbers; partners: of a stream of pairs, the image
    at the position after each, uint8 [b, 3, h, w]. valid, partners_valid: where images and partners are not padding, bool
    [b, h, w]; None: everywhere. strong, partners_strong: their strong views, uint8 [b, v, 3, h, w]; None: none.
    """

    stream: str
    images: Tensor
    masks: Tensor | None
    weights: Tensor
    positions: tuple[int, ...]
    partners: Tensor | None = None
    valid: Tensor | None = None
    partners_valid: Tensor | None = None
    strong: Tensor | None = None
    partners_strong: Tensor | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def to(self, device: torch.device) -> "Samples":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def __getitem__(self, part: slice) -> "Samples":
        return replace(self._each(lambda tensor: tensor[part]), positions=self.positions[part])

    def pin_memory(self) -> "Samples":
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Samples":
        tensors = {own.name: getattr(self, own.name) for own in fields(self)}
        return replace(self, **{name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)})


Batch = dict[str, dict[str, Samples]]
"""domain -> role ("labeled", "unlabeled", "weak") -> samples."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One source of training samples: where they lie, their endless order, how they are read."""

    name: str  # "<domain>/<role>", part of every key
    shards: ShardSet | Pool
    plan: Plan | ClassUniformPlan
    batch_size: int  # global
    pairs: bool = False  # each sample has a partner: sample p is positions 2p and 2p + 1 of the order
    augmentation: Augmentation
    distortion: Distortion | None = None  # of the strong views
    taxonomy: Taxonomy | None  # None: unlabeled, masks are not even decoded
    seed: int

    def load(self, draw: Draw) -> Augmented:
        """Image uint8 [3, h, w] and class ids uint8 [h, w] of one draw, augmented."""
        sample = self.shards.read(draw.sample, label=self.taxonomy is not None)
        image = torch.from_numpy(np.array(sample.image.convert("RGB"))).permute(2, 0, 1)
        mask = None
        if self.taxonomy is not None:
            if sample.label is None:
                raise DataError(f"{self.shards.url}: sample {sample.key} has no label, and {self.name} needs one")
            mask = torch.from_numpy(self.taxonomy.map(sample.label))
        return self.augmentation(image, mask, key=(self.seed, "augment", self.name, draw.position), anchor=draw.anchor)


class StepData(Dataset[Batch | SemisegError]):
    """Item g is this rank's `Batch` of step g, or the error that reading it met (raised by `steps_from`)."""

    def __init__(
        self, domains: Mapping[str, Mapping[str, Stream]], *, alternate: bool = False, rank: int = 0, world: int = 1
    ) -> None:
        """`alternate`: step g carries the batch of domain g mod D alone (the paper's alternation), else of every domain."""
        self.domains = {name: dict(streams) for name, streams in domains.items()}
        self.alternate, self.rank, self.world = alternate, rank, world

    def __getitem__(self, step: int) -> Batch | SemisegError:
        try:
            return {
                name: {role: self._share(stream, turn) for role, stream in self.domains[name].items()}
                for name, turn in self.turns(step)
            }
        except SemisegError as error:  # a worker would wrap what it raises into a traceback
            return error

    def turns(self, step: int) -> list[tuple[str, int]]:
        """The domains of a step, each with the number of its earlier steps."""
        names = list(self.domains)
        if self.alternate:
            return [(names[step % len(names)], step // len(names))]
        return [(name, step) for name in names]

    def _share(self, stream: Stream, turn: int) -> Samples:
        first = turn * stream.batch_size
        mine = share(first, first + stream.batch_size, self.rank, self.world)
        stride = 2 if stream.pairs else 1
        stream.shards.ahead(
            stream.plan.upcoming(stride * first)
        )  # in the process that reads: nothing runs before a fork
        draws = stream.plan.draws(stride * mine.start, stride * mine.stop)
        images, masks, valid = zip(*(stream.load(draw) for draw in draws), strict=True)
        _check_sizes(images, stream, draws)
        strong = None
        if stream.distortion is not None:
            keys = [(stream.seed, "strong", stream.name, draw.position) for draw in draws]
            strong = torch.stack([stream.distortion(own, key=key) for own, key in zip(images, keys, strict=True)])
        return Samples(
            stream.name,
            torch.stack(images[::stride]),
            None if stream.taxonomy is None else torch.stack(masks[::stride]),
            torch.full((len(mine),), self.world / stream.batch_size),
            tuple(draw.position for draw in draws[::stride]),
            torch.stack(images[1::stride]) if stream.pairs else None,
            _stacked(valid[::stride], images),
            _stacked(valid[1::stride], images) if stream.pairs else None,
            None if strong is None else strong[::stride],
            None if strong is None or not stream.pairs else strong[1::stride],
        )


def _stacked(valid: Sequence[Tensor | None], images: Sequence[Tensor]) -> Tensor | None:
    """Where images are not padding, bool [b, h, w]; None where none of them is padded."""
    if all(one is None for one in valid):
        return None
    everywhere = torch.ones(images[0].shape[-2:], dtype=torch.bool)
    return torch.stack([everywhere if one is None else one for one in valid])


def _check_sizes(images: Sequence[Tensor], stream: Stream, draws: Sequence[Draw]) -> None:
    shapes = [tuple(image.shape[-2:]) for image in images]
    if len(set(shapes)) > 1:
        other = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
        keys = [stream.shards.keys()[draws[i].sample] for i in (0, other)]
        raise DataError(
            f"{stream.name}: images of a batch must have one size, but {keys[0]} is {shapes[0]} and {keys[1]} is "
            f"{shapes[other]} (height, width); set augment.crop or augment.resize of the domain"
        )


def steps_from(data: StepData, start: int, stop: int, *, workers: int, pin: bool = False) -> Iterator[Batch]:
    """The batches of steps [start, stop), in order; a reading error is raised here, in the main process."""
    return load(data, range(start, stop), workers=workers, pin=pin)


def micro_steps(batch: Batch, count: int) -> list[Batch]:
    """A rank's batch as `count` micro-batches: contiguous parts of each stream, sizes differing by at most one."""
    if count == 1:
        return [batch]
    parts: list[Batch] = []
    for index in range(count):
        micro: Batch = {}
        for domain, roles in batch.items():
            micro[domain] = {}
            for role, samples in roles.items():
                part = share(0, len(samples), index, count)
                micro[domain][role] = samples[part.start : part.stop]
        parts.append(micro)
    return parts

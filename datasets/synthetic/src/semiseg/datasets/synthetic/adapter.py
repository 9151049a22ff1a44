"""The data sets `street` and `room`: every sample is drawn when it is read, as a function of (seed, split, number)."""

import functools
import io
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from semiseg.data import DataError, RawSample, RawSpace, Split, Taxonomy, generator, unknown
from semiseg.datasets.synthetic.dice import Dice
from semiseg.datasets.synthetic.room import room
from semiseg.datasets.synthetic.scene import Scene
from semiseg.datasets.synthetic.street import street

Kind = Literal["street", "room"]
REVISION = 1  # of the drawing code: a change of pixels is a change of protocol

STREET = ("sky", "road", "pavement", "building", "vegetation", "pole", "car", "person")
ROOM = ("wall", "floor", "ceiling", "window", "picture", "shelf", "table", "chair", "lamp")
STREET_8 = Taxonomy(
    name="street-8",
    raw=RawSpace(name="street", names=dict(enumerate((*STREET, "void")))),
    names=STREET,
    colours=(
        (135, 190, 235), (105, 85, 105), (205, 155, 200), (165, 95, 65),
        (95, 150, 55), (235, 200, 60), (45, 70, 190), (220, 45, 65),
    ),
    ids={i: i for i in range(len(STREET))},
    foreground=frozenset({5, 6, 7}),
)  # fmt: skip
ROOM_9 = Taxonomy(
    name="room-9",
    raw=RawSpace(name="room", names=dict(enumerate((*ROOM, "void")))),
    names=ROOM,
    colours=(
        (205, 195, 180), (140, 105, 80), (235, 232, 225), (110, 175, 225), (160, 85, 165),
        (95, 140, 75), (45, 85, 170), (215, 65, 60), (250, 180, 40),
    ),
    ids={i: i for i in range(len(ROOM))},
    foreground=frozenset({4, 5, 6, 7, 8}),
)  # fmt: skip


class _Scenes:
    """Common part of Street and Room: two splits of numbered scenes.

    size         (width, height) in pixels, or "192x144"; both from 32 to 2048
    train_count  scenes in split `train`, val_count in split `val`
    seed         selects the scenes; the scene with a given number does not depend on the counts
    Options may be strings, as on the command line. Raises DataError for invalid ones.
    """

    name: ClassVar[Kind]
    raw_space: ClassVar[RawSpace]
    home: ClassVar[str] = "generated while sharding: there is nothing to download"

    def __init__(
        self,
        root: Path | None = None,
        *,
        size: str | tuple[int, int] = (192, 144),
        train_count: int | str = 400,
        val_count: int | str = 100,
        seed: int | str = 0,
    ) -> None:
        if root is not None:
            raise DataError(
                f"data set '{self.name}' is generated and reads no files, but a root was given ({root}); leave it out"
            )
        self.root = None
        self.size = _size(self.name, size)
        self.seed = _integer(self.name, "seed", seed, 0)
        self._counts = {
            "train": _integer(self.name, "train_count", train_count, 1),
            "val": _integer(self.name, "val_count", val_count, 1),
        }

    @property
    def version(self) -> str:
        """Revision of the drawing code, size and seed, which determine the scenes."""
        return f"scenes{REVISION}-{self.size[0]}x{self.size[1]}-seed{self.seed}"

    def splits(self) -> dict[str, Split]:
        return {name: Split(name=name, samples=count, expected=count) for name, count in self._counts.items()}

    def samples(self, split: str) -> Iterator[RawSample]:
        if split not in self._counts:
            raise DataError(f"data set '{self.name}': {unknown('split', split, self._counts)}")
        return self._samples(split)

    def notes(self) -> list[str]:
        return []

    def next_steps(self, splits: Sequence[str], to: str) -> list[str]:
        """Training, if a recipe uses only this data set."""
        if self.name != "street" or not {"train", "val"} <= set(splits):
            return []
        return [f"semiseg train quickstart {shlex.quote(f'data.shards={to}')}"]

    def _samples(self, split: str) -> Iterator[RawSample]:
        width, height = self.size
        for number in range(self._counts[split]):
            what = (self.name, width, height, self.seed, split, number)
            yield RawSample(
                key=f"{split}-{number:06d}",
                image=functools.partial(draw_image, *what),
                label=functools.partial(draw_label, *what),
                size=width * height * 2,  # PNGs of noisy scenes: 1.7 to 2.3 bytes a pixel
                meta={"source": f"{self.name} scene {number} of {split}, seed {self.seed}"},
            )


class Street(_Scenes):
    """Streets by day, at dusk, in fog and at night: 8 classes, poles and people rare."""

    name: ClassVar[Kind] = "street"
    summary: ClassVar[str] = "generated street scenes, 8 classes (no download)"
    raw_space: ClassVar[RawSpace] = STREET_8.raw
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = (STREET_8,)


class Room(_Scenes):
    """Furnished rooms by daylight and lamplight: 9 classes, pictures and lamps rare."""

    name: ClassVar[Kind] = "room"
    summary: ClassVar[str] = "generated rooms, 9 classes (no download)"
    raw_space: ClassVar[RawSpace] = ROOM_9.raw
    taxonomies: ClassVar[tuple[Taxonomy, ...]] = (ROOM_9,)


def draw_image(kind: Kind, width: int, height: int, seed: int, split: str, number: int) -> bytes:
    """The image of a scene as PNG."""
    stream = io.BytesIO()
    Image.fromarray(draw(kind, width, height, seed, split, number).image).save(
        stream, "PNG", compress_level=4
    )  # 6: a third slower, 0.2 % smaller
    return stream.getvalue()


def draw_label(kind: Kind, width: int, height: int, seed: int, split: str, number: int) -> np.ndarray:
    """The raw ids of a scene, uint8 [height, width]."""
    return draw(kind, width, height, seed, split, number).label


@functools.lru_cache(maxsize=4)  # the writer reads an image and then its label
def draw(kind: Kind, width: int, height: int, seed: int, split: str, number: int) -> Scene:
    """One scene; its random key does not contain the size, so another size shows the same scene."""
    artists: dict[Kind, Callable[[Dice, int, int], Scene]] = {"street": street, "room": room}
    scene = artists[kind](Dice(generator(kind, seed, split, number)), width, height)
    scene.image.flags.writeable = scene.label.flags.writeable = False
    return scene


def _size(name: str, value: object) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d+)\s*[x,×]\s*(\d+)\s*", value) if isinstance(value, str) else None
    parts = match.groups() if match else value
    if isinstance(parts, (tuple, list)) and len(parts) == 2 and all(str(part).isdecimal() for part in parts):
        width, height = (int(part) for part in parts)
        if all(32 <= side <= 2048 for side in (width, height)):
            return width, height
    raise DataError(
        f"data set '{name}': option size is {value!r}; expected WIDTHxHEIGHT in pixels, "
        f"both from 32 to 2048, such as size=192x144"
    )


def _integer(name: str, option: str, value: object, least: int) -> int:
    text = str(value).strip()
    if not isinstance(value, bool) and text.isdecimal() and int(text) >= least:
        return int(text)
    raise DataError(
        f"data set '{name}': option {option} is {value!r}; expected an integer, "
        f"{least} or more, such as {option}={max(least, 200)}"
    )

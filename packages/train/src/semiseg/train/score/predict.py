"""Masks for images in files or in shards."""

import errno
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from semiseg.data import DataError, Rendered, Taxonomy, cores, overlay
from semiseg.models import Segmenter
from semiseg.train.score.images import InputImage, read, shown
from semiseg.train.score.views import SINGLE_VIEW, Views, predict_ids

Format = Literal["ids", "colour", "raw"]
_THREADS = min(4, cores())  # that read, and as many that write
_AHEAD = 1 << 26  # pixels of images that are read before their turn: 0.2 GB


@dataclass
class Written:
    """What `write_masks` did: the number of masks, one line for each image without one, and notes -> number of images."""

    masks: int = 0
    failures: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


def write_masks(
    model: Segmenter,
    taxonomy: Taxonomy,
    images: Sequence[InputImage],
    out: Path,
    *,
    domain: str | None = None,
    resize: Sequence[int] | None = None,
    views: Views = SINGLE_VIEW,
    form: Format = "ids",
    overlays: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write `out/<name>.png` for each image, at the size of the image, each file complete or not at all.

    An image that was resized as the model's shards were is predicted at that size; its mask is enlarged to the size of the
    image by the nearest id, so it has no other ids than the mask of its sample in such shards. `resize`: (height, width)
    that images are resized to before the network, as in the model's training. `views`: what is averaged after that. `form`:
    "ids" are class ids with the class colours as palette; "colour" these colours; "raw" the publisher's ids (for a class with
    several, the lowest), which `taxonomy` must hold. `overlays`: also write `out/<name>.overlay.jpg`.

    Threads read the next images and write masks while the network predicts. An image that can't be read costs no other
    image its mask. Raises DataError if masks can't be written.
    """
    table = raw_ids(taxonomy) if form == "raw" else None
    done = Written()

    def save(source: InputImage, image: Image.Image, ids: np.ndarray) -> None:
        target = out / f"{source.name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        _save(_mask(ids, taxonomy, form) if table is None else Image.fromarray(table[ids]), target, "PNG")
        if overlays:
            _save(overlay(image, ids, taxonomy), out / f"{source.name}.overlay.jpg", "JPEG")

    def finish(source: InputImage, writing: Future) -> None:
        try:
            writing.result()
            done.masks += 1
        except OSError as error:
            place = f"{shown(out / source.name)}.png"
            if error.errno == errno.ENAMETOOLONG:
                done.failures.append(f"{shown(source.place)}: its name is too long for a mask; rename the image")
                return
            why = f"cannot be written ({error.strerror or error})"
            raise DataError(f"{place}: {why}; choose another --out") from error

    readers, writers = ThreadPoolExecutor(_THREADS), ThreadPoolExecutor(_THREADS)
    waiting: deque[tuple[InputImage, Future]] = deque()
    try:
        for number, (source, reading) in enumerate(_ahead(images, readers), start=1):
            try:
                image = reading.result()
                ids = _predict(model, image, source, domain, resize, views)
                done.notes.update(image.notes)
                waiting.append((source, writers.submit(save, source, image.original, ids)))
            except DataError as error:
                done.failures.append(str(error))
            while len(waiting) > _THREADS:
                finish(*waiting.popleft())
            if progress:
                progress(number, len(images))
        while waiting:
            finish(*waiting.popleft())
    finally:
        for pool in (readers, writers):
            pool.shutdown(cancel_futures=True)
    return done


def _ahead(images: Sequence[InputImage], pool: ThreadPoolExecutor) -> Iterator[tuple[InputImage, Future[Rendered]]]:
    """Every image in order, being read; a few of the next ones are read at the same time, as many as memory allows."""
    queue: deque[tuple[InputImage, Future[Rendered], int]] = deque()
    held, number = 0, 0
    while queue or number < len(images):
        while number < len(images) and len(queue) <= _THREADS:
            size = images[number].pixels()
            if queue and held + size > _AHEAD:
                break
            queue.append((images[number], pool.submit(read, images[number]), size))
            held, number = held + size, number + 1
        source, reading, size = queue.popleft()
        yield source, reading
        held -= size


def with_raw_ids(saved: Taxonomy, own: Iterable[Taxonomy] = ()) -> Taxonomy:
    """A saved model's taxonomy completed with the publisher's ids, from `own` or an installed data set.

    Raises DataError if there is no taxonomy of that name, or if its classes are not those of the model.
    """
    try:
        known = Taxonomy.get(saved.name, own)
    except DataError:
        what = f"the publisher's ids of taxonomy '{saved.name}' are unknown here: no installed data set has it"
        raise DataError(f"{what}; predict shards, which hold them, or choose --format ids") from None
    if known.names != saved.names:
        raise DataError(f"the model's classes differ from those of taxonomy '{saved.name}'; choose another --format")
    return known


def raw_ids(taxonomy: Taxonomy) -> np.ndarray:
    """Class id -> the lowest raw id of this class, uint8 [C], or uint16 if ids exceed 255."""
    lowest: dict[int, int] = {}
    for raw, number in sorted(taxonomy.ids.items()):
        lowest.setdefault(number, raw)
    missing = [name for number, name in enumerate(taxonomy.names) if number not in lowest]
    if missing:
        raise DataError(f"taxonomy '{taxonomy.name}' has no raw id for {', '.join(missing)}; choose another --format")
    table = np.array([lowest[number] for number in range(len(taxonomy.names))])
    return table.astype(np.uint8 if table.max() < 256 else np.uint16)


@torch.inference_mode()
def _predict(
    model: Segmenter,
    image: Rendered,
    source: InputImage,
    domain: str | None,
    resize: Sequence[int] | None,
    views: Views,
) -> np.ndarray:
    """Class ids uint8 [h, w], at the size of the original image. Raises DataError if memory does not suffice."""
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.array(image.pixels)).permute(2, 0, 1).to(device)
    if resize is not None:
        pixels = tv.resize(pixels, list(resize), antialias=True)
    size = (image.pixels.height, image.pixels.width)
    try:
        ids = predict_ids(model, pixels, domain=domain, size=size, views=views).cpu().numpy()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        what = f"{size[1]}x{size[0]} pixels do not fit into memory"
        raise DataError(f"{shown(source.place)}: {what}; predict it in tiles: --tile 1024 1024") from error
    if image.original.size == image.pixels.size:
        return ids
    return np.asarray(Image.fromarray(ids).resize(image.original.size, Image.Resampling.NEAREST))


def _mask(ids: np.ndarray, taxonomy: Taxonomy, form: Format) -> Image.Image:
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(taxonomy.colours)] = taxonomy.colours
    if form == "colour":
        return Image.fromarray(palette[ids])
    mask = Image.fromarray(ids).convert("P")
    mask.putpalette(palette.tobytes())
    return mask


def _save(image: Image.Image, target: Path, kind: str) -> None:
    part = target.with_name(f".{secrets.token_hex(8)}.part")  # another run may write the same masks
    try:
        image.save(part, kind)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)

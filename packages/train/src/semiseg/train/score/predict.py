"""Masks for images in files or in shards."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import functional as tv

from semiseg.data import DataError, ShardSet, Taxonomy, overlay
from semiseg.models import Segmenter
from semiseg.train.score.views import SINGLE_VIEW, Views, predict_ids

Format = Literal["ids", "colour", "raw"]
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})


@dataclass(frozen=True)
class InputImage:
    """An image to predict. place: for messages. name: path of its mask in the output folder, without a suffix."""

    place: str
    name: Path
    read: Callable[[], Image.Image]


def read(source: InputImage, more: str = "") -> Image.Image:
    """The image. Raises DataError with its place if it cannot be read; `more` is appended to the message."""
    try:
        return source.read()
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{source.place}: not a readable image ({error}){more}") from None


def find_images(places: Sequence[Path], out: Path | None = None) -> list[InputImage]:
    """Image files, sorted; folders are searched recursively except for `out`, and masks keep their relative paths.

    Raises DataError for a place that does not exist, if there is no image, for two images whose masks would have the same
    name, and for masks that would overwrite images or be found as images by the next search.
    """
    to = None if out is None else out.resolve()
    found: list[tuple[Path, Path]] = []
    for place in places:
        if place.is_dir():
            if place.resolve() == to:
                raise DataError(
                    f"--out {out} is the folder of the images; masks in it would be mistaken for images; choose another"
                )
            # macOS leaves "._x.jpg" beside each x.jpg that it copies; it is not an image.
            files = sorted(f for f in place.rglob("[!.]*") if f.suffix.lower() in SUFFIXES and f.is_file())
            found += [
                (file, file.relative_to(place)) for file in files if to is None or not file.resolve().is_relative_to(to)
            ]
        elif place.is_file():
            found.append((place, Path(place.name)))
        else:
            raise DataError(f"{place}: no such file or folder")
    if not found:
        raise DataError(f"no images in {', '.join(map(str, places))}; looked for {', '.join(sorted(SUFFIXES))}")
    taken: dict[Path, Path] = {}
    for file, name in found:
        if out is not None and (target := out / name.with_suffix(".png")).resolve() == file.resolve():
            raise DataError(f"{target} is an image that its mask would overwrite; choose another --out")
        other = taken.setdefault(name.with_suffix(""), file)
        if other != file:
            raise DataError(
                f"the masks of {other} and {file} would both be {name.with_suffix('.png')}; predict them separately"
            )
    return [InputImage(str(file), name.with_suffix(""), partial(_open, file)) for file, name in found]


def images_of(shards: ShardSet) -> list[InputImage]:
    """The images of a split, labeled or not; masks are named by key, as the Cityscapes server expects."""

    def read(index: int) -> Image.Image:
        return shards[index].image.convert("RGB")

    keys = shards.keys()
    return [InputImage(f"{shards.url}: sample {key}", Path(key), partial(read, i)) for i, key in enumerate(keys)]


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
) -> None:
    """Write `out/<name>.png` for each image, at the size of the image, each file complete or not at all.

    `resize`: (height, width) that images are resized to before the network, as in the model's training; masks still have
    the size of the image. `views`: what is averaged after that. `form`: "ids" are class ids with the class colours as
    palette; "colour" these colours; "raw" the publisher's ids (for a class with several, the lowest), which `taxonomy`
    must hold. `overlays`: also write `out/<name>.overlay.jpg`.
    Raises DataError with the place of an image that can't be read or a mask that can't be written.
    """
    raw = raw_ids(taxonomy) if form == "raw" else None
    for done, source in enumerate(images, start=1):
        image = read(source, f"; {done - 1} masks were written before it; remove or repair this image")
        ids = _predict(model, image, domain, resize, views)
        target = out / f"{source.name}.png"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _save(_mask(ids, taxonomy, form) if raw is None else Image.fromarray(raw[ids]), target, "PNG")
            if overlays:
                _save(overlay(image, ids, taxonomy), out / f"{source.name}.overlay.jpg", "JPEG")
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror or error}); choose another --out") from None
        if progress:
            progress(done, len(images))


def with_raw_ids(saved: Taxonomy, own: Iterable[Taxonomy] = ()) -> Taxonomy:
    """A saved model's taxonomy completed with the publisher's ids, from `own` or an installed data set.

    Raises DataError if there is no taxonomy of that name, or if its classes are not those of the model.
    """
    known = Taxonomy.get(saved.name, own)
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
    model: Segmenter, image: Image.Image, domain: str | None, resize: Sequence[int] | None, views: Views
) -> np.ndarray:
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(device)
    if resize is not None:
        pixels = tv.resize(pixels, list(resize), antialias=True)
    size = (image.height, image.width)
    return predict_ids(model, pixels, domain=domain, size=size, views=views).cpu().numpy()


def _mask(ids: np.ndarray, taxonomy: Taxonomy, form: Format) -> Image.Image:
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(taxonomy.colours)] = taxonomy.colours
    if form == "colour":
        return Image.fromarray(palette[ids])
    mask = Image.fromarray(ids).convert("P")
    mask.putpalette(palette.tobytes())
    return mask


def _open(file: Path) -> Image.Image:
    """The image, turned upright by its EXIF orientation."""
    with Image.open(file) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _save(image: Image.Image, target: Path, kind: str) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        image.save(part, kind)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)

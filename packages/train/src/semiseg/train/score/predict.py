"""Masks for images that lie in files or in shards."""

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
from semiseg.train.score.views import ONE_LOOK, Views, predict_ids

Format = Literal["ids", "colour", "raw"]
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})


@dataclass(frozen=True)
class Picture:
    """An image to predict. place: for messages. name: of its mask below the output folder, without a suffix."""

    place: str
    name: Path
    read: Callable[[], Image.Image]


def read(picture: Picture, more: str = "") -> Image.Image:
    """The image. Raises DataError naming the place of one that can't be read; `more` ends its message."""
    try:
        return picture.read()
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{picture.place}: not an image that can be read ({error}){more}") from None


def find_images(places: Sequence[Path], out: Path | None = None) -> list[Picture]:
    """Image files, sorted; folders are searched through, but for `out`, and masks named as images are below them.

    Raises DataError for a place that is not there, no image at all, two images whose masks would have one name, and masks
    that would take the place of images, or be taken for some by the next search.
    """
    to = None if out is None else out.resolve()
    found: list[tuple[Path, Path]] = []
    for place in places:
        if place.is_dir():
            if place.resolve() == to:
                raise DataError(
                    f"--out {out} is the folder of the images, and masks in it would be taken for images; choose another"
                )
            # A Mac leaves "._x.jpg" beside each x.jpg that it copies, which is no image.
            files = sorted(f for f in place.rglob("[!.]*") if f.suffix.lower() in SUFFIXES and f.is_file())
            found += [
                (file, file.relative_to(place)) for file in files if to is None or not file.resolve().is_relative_to(to)
            ]
        elif place.is_file():
            found.append((place, Path(place.name)))
        else:
            raise DataError(f"{place}: no such file or folder")
    if not found:
        raise DataError(f"no image in {', '.join(map(str, places))}; looked for {', '.join(sorted(SUFFIXES))}")
    taken: dict[Path, Path] = {}
    for file, name in found:
        if out is not None and (target := out / name.with_suffix(".png")).resolve() == file.resolve():
            raise DataError(f"{target} is an image, and its mask would take its place; choose another --out")
        other = taken.setdefault(name.with_suffix(""), file)
        if other != file:
            raise DataError(
                f"{other} and {file} would both be written to {name.with_suffix('.png')}; predict them apart"
            )
    return [Picture(str(file), name.with_suffix(""), partial(_open, file)) for file, name in found]


def images_of(shards: ShardSet) -> list[Picture]:
    """The images of a split, with or without labels; masks are named by key, which for Cityscapes is what its server wants."""

    def read(index: int) -> Image.Image:
        return shards[index].image.convert("RGB")

    keys = shards.keys()
    return [Picture(f"{shards.url}: sample {key}", Path(key), partial(read, i)) for i, key in enumerate(keys)]


def write_masks(
    model: Segmenter,
    taxonomy: Taxonomy,
    pictures: Sequence[Picture],
    out: Path,
    *,
    domain: str | None = None,
    resize: Sequence[int] | None = None,
    views: Views = ONE_LOOK,
    form: Format = "ids",
    overlays: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `out/<name>.png` for each picture, at its size, each whole or not at all.

    `resize`: (height, width) that images are brought to before the network, as in the model's training; masks have the
    image's size all the same. `views`: how they are looked at after that. `form`: "ids" are class ids with the
    classes' colours as palette; "colour" these colours; "raw" the publisher's ids, which `taxonomy` has to know, of
    several that make one class the lowest. `overlays`: also write `out/<name>.overlay.jpg`.
    Raises DataError naming the place of an image that can't be read or a mask that can't be written.
    """
    raw = raw_ids(taxonomy) if form == "raw" else None
    for done, picture in enumerate(pictures, start=1):
        image = read(picture, f"; {done - 1} masks are written")
        ids = _predict(model, image, domain, resize, views)
        target = out / f"{picture.name}.png"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _save(_mask(ids, taxonomy, form) if raw is None else Image.fromarray(raw[ids]), target, "PNG")
            if overlays:
                _save(overlay(image, ids, taxonomy), out / f"{picture.name}.overlay.jpg", "JPEG")
        except OSError as error:
            raise DataError(f"{target}: can't be written ({error.strerror or error})") from None
        if progress:
            progress(done, len(pictures))


def with_raw_ids(saved: Taxonomy, own: Iterable[Taxonomy] = ()) -> Taxonomy:
    """A saved model's taxonomy with the publisher's ids, which it lacks: from `own` or an installed data set.

    Raises DataError where there is none of that name, or it has other classes than the model.
    """
    known = Taxonomy.get(saved.name, own)
    if known.names != saved.names:
        raise DataError(f"the model has other classes than taxonomy '{saved.name}' here; choose another format")
    return known


def raw_ids(taxonomy: Taxonomy) -> np.ndarray:
    """Class id -> the lowest raw id that makes this class, uint8 [C], or uint16 where that does not fit."""
    lowest: dict[int, int] = {}
    for raw, number in sorted(taxonomy.ids.items()):
        lowest.setdefault(number, raw)
    lost = [name for number, name in enumerate(taxonomy.names) if number not in lowest]
    if lost:
        raise DataError(f"taxonomy '{taxonomy.name}' has no raw id for {', '.join(lost)}; write another format")
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
    """The image, upright as its EXIF orientation says."""
    with Image.open(file) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _save(image: Image.Image, target: Path, kind: str) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        image.save(part, kind)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)

"""Masks for images that lie in files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.v2 import functional as tv

from semiseg.data import DataError, Taxonomy, overlay
from semiseg.models import Segmenter
from semiseg.train.evaluate import predict_ids

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})


def find_images(places: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(file, its path relative to the place it was found in), sorted; folders are searched through.

    Raises DataError for a place that is not there, no image at all, or two images whose masks would have one name.
    """
    found: list[tuple[Path, Path]] = []
    for place in places:
        if place.is_dir():
            # A Mac leaves "._x.jpg" beside each x.jpg that it copies, which is no image.
            files = sorted(f for f in place.rglob("[!.]*") if f.suffix.lower() in SUFFIXES and f.is_file())
            found += [(file, file.relative_to(place)) for file in files]
        elif place.is_file():
            found.append((place, Path(place.name)))
        else:
            raise DataError(f"{place}: no such file or folder")
    if not found:
        raise DataError(f"no image in {', '.join(map(str, places))}; looked for {', '.join(sorted(SUFFIXES))}")
    taken: dict[Path, Path] = {}
    for file, name in found:
        other = taken.setdefault(name.with_suffix(""), file)
        if other != file:
            raise DataError(
                f"{other} and {file} would both be written to {name.with_suffix('.png')}; predict them apart"
            )
    return found


def predict_files(
    model: Segmenter,
    taxonomy: Taxonomy,
    images: Sequence[tuple[Path, Path]],
    out: Path,
    *,
    domain: str | None = None,
    resize: Sequence[int] | None = None,
    overlays: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `out/<name>.png`, 8-bit palette images of class ids at the image's size, each whole or not at all.

    `images`: what `find_images` gives. `resize`: (height, width) that images are brought to before the network, as in the
    model's training; masks have the image's size all the same. `overlays`: also write `out/<name>.overlay.jpg`. EXIF
    orientation is applied.
    Raises DataError naming the file for an image that can't be read or a mask that can't be written.
    """
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(taxonomy.colours)] = taxonomy.colours
    for done, (file, name) in enumerate(images, start=1):
        try:
            with Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{file}: not an image that can be read ({error}); {done - 1} masks are written") from None
        ids = _predict(model, image, domain, resize)
        mask = Image.fromarray(ids).convert("P")
        mask.putpalette(palette.tobytes())
        target = out / name.with_suffix(".png")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _save(mask, target, "PNG")
            if overlays:
                _save(overlay(image, ids, taxonomy), target.with_suffix(".overlay.jpg"), "JPEG")
        except OSError as error:
            raise DataError(f"{target}: can't be written ({error.strerror or error})") from None
        if progress:
            progress(done, len(images))


@torch.inference_mode()
def _predict(model: Segmenter, image: Image.Image, domain: str | None, resize: Sequence[int] | None) -> np.ndarray:
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(device)
    if resize is not None:
        pixels = tv.resize(pixels, list(resize), antialias=True)
    return predict_ids(model, pixels, domain=domain, size=(image.height, image.width)).cpu().numpy()


def _save(image: Image.Image, target: Path, kind: str) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        image.save(part, kind)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)

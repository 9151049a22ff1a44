"""Images with more bands than colours and transparency: refused, unless it is known which bands to use."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from semiseg.data.errors import DataError
from semiseg.data.image.tiff import TiffBands

_LOOK = 1024  # pixels below which a fourth band is not examined


def check_bands(picture: Any, chosen: Sequence[int]) -> None:
    """DataError for an image with more bands than colours and alpha, unless it is known which to use."""
    bands = TiffBands.of(picture) if picture.format == "TIFF" else None
    if bands is None:
        return
    if bands.signed and max(bands.bits) == 8:
        raise DataError("pixels are signed 8-bit numbers; save it as unsigned 8-bit or as 16-bit")
    if bands.count == bands.colours or (bands.alpha and bands.count == bands.colours + 1):
        return
    if not chosen:
        if bands.colours < 3:
            raise DataError(
                f"it has {bands.count} bands, which are not red, green and blue; choose one with --option bands=1"
            )
        raise DataError(
            f"it has {bands.count} bands, and which are red, green and blue is not known; choose three (or one) with "
            "--option bands=1,2,3"
        )


def choose_bands(picture: Any, bands: Sequence[int]) -> Image.Image:
    """The chosen bands as RGB; inks and palettes are converted to three bands first."""
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode not in ("L", "LA", "RGB", "RGBA"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    there = len(picture.getbands())
    if max(bands) > there:
        many = f"band {max(bands)} can't be read: {there} bands of this image can"
        rest = " ".join(f"-b {band}" for band in bands)
        raise DataError(f"{many}; write the bands to a new file with: gdal_translate {rest} IN.tif OUT.tif")
    planes = [picture.getchannel(band - 1) for band in bands]
    return Image.merge("RGB", planes * (3 // len(planes)))


def check_alpha(picture: Any) -> None:
    """DataError if the alpha follows the details of the colours: then it is a band of the picture, such as infrared.

    Transparency is mostly all or nothing, and its edges are few.
    """
    if picture.mode != "RGBA" or picture.width * picture.height < _LOOK:
        return
    pixels = np.asarray(picture)[: 1 << 11, : 1 << 11]
    alpha = pixels[..., 3]
    if ((alpha == 0) | (alpha == 255)).mean() > 0.5 or alpha.min() == alpha.max():
        return
    grey = pixels[..., :3].mean(2)
    likeness = [_likeness(np.diff(alpha.astype(np.float64), axis=axis), np.diff(grey, axis=axis)) for axis in (0, 1)]
    if min(likeness) > 0.3:
        raise DataError(
            "its fourth band is not transparency: it follows the picture, as infrared does; choose bands with "
            "--option bands=1,2,3"
        )


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The absolute correlation of two arrays, 0 if one is constant."""
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return abs(float((one * other).sum())) / scale if scale else 0.0

"""Which files are images: one list of suffixes and formats, and the only place where a user's image is opened.

Pillow is given the formats by name: it would otherwise start Ghostscript for PostScript in a file called `a.png`.
"""

import functools
import importlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from PIL import Image

from semiseg.data.errors import DataError
from semiseg.data.image.tiff import describe_tiff

PIXELS = 89_478_485  # Pillow warns about decompression bombs above this size
_SUFFIXES = {
    "JPEG": ".jpg .jpeg .jpe .jfif .jif .mpo",
    "PNG": ".png .apng",
    "TIFF": ".tif .tiff",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "DIB": ".dib",
    "GIF": ".gif",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "JPEG2000": ".jp2 .j2k .jpx .jpf .j2c .jpc",
    "AVIF": ".avif",
    "HEIF": ".heic .heif .hif",
    "JXL": ".jxl",
    "TGA": ".tga",
    "PCX": ".pcx",
    "SGI": ".sgi .bw",
    "QOI": ".qoi",
    "PSD": ".psd",
    "SUN": ".ras",
}
_FILTERS = threading.Lock()  # filters of warnings belong to all threads
_PLUGINS = {"HEIF": "pillow-heif", "JXL": "pillow-jxl-plugin"}  # packages that teach Pillow a format
# Pictures that neither Pillow nor a plugin reads.
_FOREIGN = ".dng .raw .cr2 .cr3 .nef .arw .orf .rw2 .raf .pef .srw .exr .hdr .dcm .svg .eps .ps .pdf .ai .wmf .emf .xcf"
_SIGNS = {
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    b"<html": "HTML",
    b"<!doctype html": "HTML",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"PK\x03\x04": "a zip",
    b"v/1\x01": "OpenEXR",
    b"version https://git-lfs": "a Git LFS pointer: run git lfs pull",
}


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read on this machine; plugins are used if they are installed."""
    for module in ("pillow_heif", "pillow_jxl"):
        with suppress(ImportError):
            plugin = importlib.import_module(module)
            getattr(plugin, "register_heif_opener", lambda: None)()
    Image.init()
    return tuple(name for name in _SUFFIXES if name in Image.OPEN)


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The suffixes, in lower case and with their dot, of image files that are read on this machine."""
    return frozenset(suffix for name in image_formats() for suffix in _SUFFIXES[name].split())


@functools.cache
def unreadable_suffixes() -> dict[str, str]:
    """Suffixes of pictures that are not read on this machine, and what to do about them."""
    found: dict[str, str] = dict.fromkeys(_FOREIGN.split(), "convert them to JPEG or PNG")
    for name in _SUFFIXES.keys() - set(image_formats()):
        package = _PLUGINS.get(name)
        remedy = f"convert them to JPEG or PNG, or: pip install {package}" if package else "convert them to JPEG or PNG"
        found |= dict.fromkeys(_SUFFIXES[name].split(), remedy)
    return found


@contextmanager
def open_image(file: BinaryIO, filled: bool = True) -> Iterator[Any]:
    """An open image; any error of its file becomes a DataError without a file name."""
    if not filled:
        raise DataError("the file is empty")
    try:
        with _opened(file) as picture:
            if picture.width * picture.height > PIXELS:
                raise _too_large(f"{picture.width}x{picture.height}")
            yield picture
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_large("its size according to the header") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(_unidentified(file)) from error
    except Exception as error:  # decoders raise many kinds of errors for a damaged file
        raise DataError(f"truncated or damaged ({error}); replace it") from error


def _opened(file: BinaryIO) -> Any:
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # many pixels are reported by `open_image`, damage when pixels are decoded
        return Image.open(file, formats=image_formats())


def _unidentified(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(64)
    if not head:
        return "the file is empty"
    start = head.lstrip().lower()
    kind = next((kind for sign, kind in _SIGNS.items() if head.startswith(sign) or start.startswith(sign.lower())), "")
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        kind = f"HEIC, which needs a plugin: pip install {_PLUGINS['HEIF']}"
    if head[:2] == b"\xff\x0a" or head[4:8] == b"JXL ":
        kind = f"JPEG XL, which needs a plugin: pip install {_PLUGINS['JXL']}"
    if not kind and (bands := describe_tiff(file)):
        return f"Pillow can't read {bands}"
    more = f" ({kind})" if kind else " (many bands)"
    return f"Pillow can't read it: not an image, or an unusual kind{more}; save it as PNG"


def _too_large(what: str) -> DataError:
    return DataError(f"{what}: more than {PIXELS // 10**6} million pixels; cut it into tiles, or remove it")

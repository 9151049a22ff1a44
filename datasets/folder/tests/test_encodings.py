"""How programs and data sets store masks: each encoding is read right, or refused with options that make it right.

The expected classes are made from the scenes, not from the files: `SCENES` holds the classes 0, 1, 2 ... of every pixel.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from semiseg.data import DataError, ShardSet, shard
from semiseg.datasets.folder import Folder

Put = Callable[..., Path]
HEIGHT, WIDTH, COUNT = 40, 56, 6
RAMP = np.array([(0, 0, 0), (200, 0, 0), (0, 0, 200), (0, 160, 0), (240, 240, 240)], np.uint8)


def scene(number: int, classes: int = 3) -> np.ndarray:
    """Discs and boxes of the classes on a background of class 0."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    for value in range(1, classes):
        cy, cx, radius = rng.integers(8, 32), rng.integers(8, 48), rng.integers(5, 10)
        found[(y - cy) ** 2 + (x - cx) ** 2 < radius**2 if value % 2 else (abs(y - cy) < 6) & (abs(x - cx) < 7)] = value
    return found


def binary(number: int) -> np.ndarray:
    return scene(number, 2)


def border(number: int, width: int = 1) -> np.ndarray:
    """Where classes meet."""
    truth = scene(number)
    edges = np.zeros(truth.shape, bool)
    edges[:-width] |= truth[:-width] != truth[width:]
    edges[:, :-width] |= truth[:, :-width] != truth[:, width:]
    return edges


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values)


def rgb(truth: np.ndarray, colours: Any = RAMP) -> Image.Image:
    return Image.fromarray(np.array(colours, np.uint8)[truth])


def rgba(colours: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colours, alpha.astype(np.uint8)]))


def with_palette(indices: np.ndarray, colours: dict[int, tuple[int, ...]]) -> Image.Image:
    image = Image.frombytes("P", indices.shape[::-1], indices.astype(np.uint8).tobytes())
    image.putpalette([band for i in range(256) for band in colours.get(i, (0, 0, 0))])
    return image


def soft(truth: np.ndarray) -> Image.Image:
    """Black and white with smoothed edges."""
    return grey(truth * np.uint8(255)).filter(ImageFilter.GaussianBlur(0.7))


def file(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to store masks.

    mask     number of the scene -> picture, or the bytes of a file
    truth    number of the scene -> the classes of every pixel, 255 for ignored ones
    files    class files
    refused  words of the refusal, if the masks are refused without options
    options  options that the refusal names, with which the masks are read right
    notes    words that the command must print
    """

    mask: Callable[[int], Any]
    truth: Callable[[int], np.ndarray] = scene
    suffix: str = "png"
    files: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def stray(value: int) -> Callable[[int], Image.Image]:
    """0 and 255, with one pixel of another value in one mask."""

    def mask(number: int) -> Image.Image:
        values = binary(number) * np.uint8(255)
        values[0, 0] = value if number == 3 else 0
        return grey(values)

    return mask


def without(place: tuple[int, int]) -> Callable[[int], np.ndarray]:
    def truth(number: int) -> np.ndarray:
        found = binary(number)
        found[place] = 1 if number == 3 else 0
        return found

    return truth


def stored(truth: np.ndarray, values: list[Any], kind: Any = np.uint8) -> np.ndarray:
    return np.array(values, kind)[truth]


def tif(array: np.ndarray, **tags: Any) -> bytes:
    return file(Image.fromarray(array), "TIFF", **tags)


def jpeg(picture: Image.Image) -> bytes:
    return file(picture, "JPEG", quality=90)


def voided(number: int) -> np.ndarray:
    return np.where(border(number), 255, scene(number)).astype(np.uint8)


def objects(number: int) -> np.ndarray:
    """Each object has its number."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    for value in range(1, 3 + number):
        cy, cx = np.random.default_rng(100 * number + value).integers(4, 36, 2)
        found[(abs(y - cy) < 3) & (abs(x - cx - 8) < 3)] = 0
        left = 6 * (value - 1)
        found[4:9, left : left + 4] = value
    return found


COLOURS = (
    'classes = [{name="ground", colour=[0,0,0]}, {name="roof", colour="#c80000"}, {name="tree", colour=[0,0,200]}]'
)
BLACK_WHITE = 'classes = [{name="ground", colour=[0,0,0]}, {name="roof", colour=[255,255,255]}]'
INVERTED = 'classes = [{name="roof", colour=[0,0,0]}, {name="ground", colour=[255,255,255]}]'
WHITE_FIRST = 'classes = [{name="roof", colour=[255,255,255]}, {name="ground", colour=[0,0,0]}]'

CASES: dict[str, Case] = {
    # black and white
    "0/255": Case(mask=lambda i: grey(binary(i) * np.uint8(255)), truth=binary, notes=("0 is background, 255 is foreground",)),
    "1-bit": Case(mask=lambda i: grey(binary(i) * np.uint8(255)).convert("1"), truth=binary),
    "0/255 as RGB": Case(mask=lambda i: grey(binary(i) * np.uint8(255)).convert("RGB"), truth=binary),
    "0/255 as RGBA": Case(mask=lambda i: grey(binary(i) * np.uint8(255)).convert("RGBA"), truth=binary),
    "0/255 as LA": Case(mask=lambda i: grey(binary(i) * np.uint8(255)).convert("LA"), truth=binary),
    "Carvana's GIF": Case(mask=lambda i: file(grey(binary(i) * np.uint8(255)), "GIF"), truth=binary, suffix="gif"),
    "BMP": Case(mask=lambda i: file(grey(binary(i) * np.uint8(255)), "BMP"), truth=binary, suffix="bmp"),
    "0/1": Case(mask=lambda i: grey(binary(i)), truth=binary, notes=("(0, 1)",)),
    "numpy booleans": Case(mask=lambda i: Image.fromarray(binary(i) > 0), truth=binary),
    "1-bit and 0/255": Case(
        mask=lambda i: grey(binary(i) * np.uint8(255)).convert("1" if i % 2 else "L"), truth=binary
    ),
    "1-bit and 0/1": Case(
        mask=lambda i: grey(binary(i) * np.uint8(255)).convert("1") if i % 2 else grey(binary(i)), truth=binary
    ),
    "0/1 and 0/255": Case(
        mask=lambda i: grey(binary(i) * np.uint8(255 if i % 2 else 1)), truth=binary,
        refused="0 and 1 here (3 masks), 0 and 255 in 3 masks: use --option threshold=1", options={"threshold": 1},
        notes=("threshold=1: values of at least 1 are white",),
    ),
    "0/1 and 0/255, with names": Case(
        mask=lambda i: grey(binary(i) * np.uint8(255 if i % 2 else 1)),
        truth=binary,
        files={"classes.txt": "ground\nroof\n"},
        refused="0 and 1 here (3 masks), 0 and 255 in 3 masks: use --option threshold=1",
        options={"threshold": 1},
        classes=("ground", "roof"),
    ),
    "one pixel of 1, with names": Case(
        mask=stray(1),
        truth=binary,
        files={"classes.txt": "ground\nroof\n"},
        refused="0 and 255, and 1 in 1 pixel (under 0.1%) of all masks",
        options={"threshold": 128},
        classes=("ground", "roof"),
    ),
    "one pixel of 254": Case(
        mask=stray(254), truth=without((0, 0)), refused="254 in 1 pixel (under 0.1%) of all masks", options={"threshold": 128},
        notes=("1 pixel (under 0.1%) were neither, in 1 mask",),
    ),
    "one pixel of 1": Case(
        mask=stray(1), truth=binary, refused="1 in 1 pixel", options={"threshold": 128},
    ),
    "one pixel of 128": Case(
        mask=stray(128), truth=without((0, 0)), refused="128 in 1 pixel", options={"threshold": 128},
    ),
    "smoothed": Case(
        mask=lambda i: soft(binary(i)), truth=lambda i: (np.asarray(soft(binary(i))) >= 128).astype(np.uint8),
        refused="--option threshold=128", options={"threshold": 128},
    ),
    "smoothed, as RGB": Case(
        mask=lambda i: soft(binary(i)).convert("RGB"), truth=lambda i: (np.asarray(soft(binary(i))) >= 128).astype(np.uint8),
        refused="--option threshold=128", options={"threshold": 128},
    ),
    "smoothed, in a palette of greys": Case(
        mask=lambda i: with_palette(255 - np.asarray(soft(binary(i))), {j: (255 - j,) * 3 for j in range(256)}),
        truth=lambda i: (np.asarray(soft(binary(i))) >= 128).astype(np.uint8),
        refused="--option threshold=128", options={"threshold": 128},
    ),
    "smoothed, with a class file": Case(
        mask=lambda i: soft(binary(i)), truth=lambda i: (np.asarray(soft(binary(i))) >= 100).astype(np.uint8),
        files={"classes.txt": "ground\nroof\n"}, refused="unknown value in a mask", options={"threshold": 100},
        classes=("ground", "roof"),
    ),
    "Kvasir's JPEG": Case(
        mask=lambda i: jpeg(grey(binary(i) * np.uint8(255)).convert("RGB")), truth=binary, suffix="jpg",
        refused="the mask is a JPEG, whose compression changes ids and colours; export it again as PNG, or use --option "
        "threshold=128", options={"threshold": 128},
    ),
    "a JPEG stored as PNG": Case(
        mask=lambda i: Image.open(io.BytesIO(jpeg(grey(binary(i) * np.uint8(255))))), truth=binary,
        refused="--option threshold=", options={"threshold": 128},
    ),
    "inverted, by colours": Case(
        mask=lambda i: grey((1 - binary(i)) * np.uint8(255)), truth=lambda i: binary(i) ^ 1, files={"classes.toml": INVERTED},
        classes=("roof", "ground"),
    ),
    "inverted, by ids": Case(
        mask=lambda i: grey((1 - binary(i)) * np.uint8(255)), truth=lambda i: binary(i) ^ 1,
        files={"classes.toml": 'classes = [{name="roof", id=0}, {name="ground", id=255}]'}, classes=("roof", "ground"),
    ),
    "mostly white": Case(
        mask=lambda i: grey((1 - binary(i)) * np.uint8(255)), truth=lambda i: binary(i) ^ 1,
        notes=("if black is the foreground, list the classes in a classes.toml",),
    ),
    # black and white, with a class file: the colours of its classes decide, in every form
    **{
        f"black is ground, as {form}": Case(
            mask=lambda i, form=form: grey(binary(i) * np.uint8(255)).convert(form), truth=binary,
            files={"classes.toml": BLACK_WHITE}, classes=("ground", "roof"),
        )
        for form in ("1", "L", "LA", "P", "RGB", "RGBA")
    },
    **{
        f"white is the first class, as {form}": Case(
            mask=lambda i, form=form: grey(binary(i) * np.uint8(255)).convert(form), truth=lambda i: binary(i) ^ 1,
            files={"classes.toml": WHITE_FIRST}, classes=("roof", "ground"),
        )
        for form in ("1", "L", "LA", "P", "RGB", "RGBA")
    },
    "black and white in 16 bits": Case(
        mask=lambda i: grey(stored(binary(i), [0, 65535], np.uint16)), truth=lambda i: binary(i) ^ 1,
        files={"classes.toml": WHITE_FIRST},
    ),
    **{
        f"255 is ignored by the class file, as {form}": Case(
            mask=lambda i, form=form: grey(stored(scene(i), [0, 1, 255])).convert(form),
            truth=lambda i: stored(scene(i), [0, 1, 255]),
            files={"classes.toml": 'ignore = [255]\nclasses = ["ground", "roof"]'},
            notes=("% of the pixels of all masks (255; ",),
        )
        for form in ("L", "LA", "RGB", "RGBA")
    },
    # grey levels
    "0/127/255, three classes": Case(
        mask=lambda i: grey(stored(scene(i), [0, 127, 255])), refused="--option ignore=none", options={"ignore": "none"},
    ),
    "0/127/255, a trimap": Case(
        mask=lambda i: grey(stored(scene(i), [0, 127, 255])), truth=lambda i: stored(scene(i), [0, 255, 1]),
        refused="--option ignore=127", options={"ignore": "127"},
    ),
    "0/128/255, two classes": Case(
        mask=lambda i: grey(stored(scene(i), [0, 128, 255])), truth=lambda i: stored(scene(i), [0, 1, 1]),
        refused="--option threshold=128", options={"threshold": 128},
    ),
    "52 grey levels": Case(
        mask=lambda i: grey((np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 7 % 52 * 5).astype(np.uint8)),
        truth=lambda i: (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 7 % 52).astype(np.uint8),
        refused="52 grey levels from 0 to 255", options={"ignore": "none"},
    ),
    "three greys by colour": Case(
        mask=lambda i: grey(stored(scene(i), [0, 127, 255])),
        files={"classes.toml": 'classes = [{name="a", colour=[0,0,0]}, {name="b", colour=[127,127,127]}, '
               '{name="c", colour=[255,255,255]}]'},
    ),
    # ids
    "ids": Case(mask=lambda i: grey(scene(i))),
    "ids with a border of 255": Case(mask=lambda i: grey(voided(i)),
    truth=voided, notes=("of the pixels of all masks (255; ",)),
    "ids with much of 255": Case(
        mask=lambda i: grey(np.where(border(i, 6), 255, scene(i)).astype(np.uint8)),
        truth=lambda i: np.where(border(i, 6), 255, scene(i)).astype(np.uint8),
        refused="of all pixels, beside 0, 1, 2: use --option ignore=255", options={"ignore": "255"},
    ),
    "ids with much of 255, a class": Case(
        mask=lambda i: grey(stored(scene(i, 4), [255, 0, 1, 2])), truth=lambda i: stored(scene(i, 4), [3, 0, 1, 2]),
        refused="--option ignore=none if it is a class", options={"ignore": "none"},
    ),
    "a class file of names, with much of 255": Case(
        mask=lambda i: grey(np.where(border(i, 6), 255, scene(i)).astype(np.uint8)),
        truth=lambda i: np.where(border(i, 6), 255, scene(i)).astype(np.uint8), files={"classes.txt": "a\nb\nc\n"},
        refused="--option ignore=255", options={"ignore": "255"},
    ),
    "LoveDA: 0 is ignored": Case(
        mask=lambda i: grey(scene(i) + (scene(i) > 0)), truth=lambda i: stored(scene(i), [255, 0, 1]),
        files={"classes.toml": 'ignore = [0]\nclasses = [{name="a", id=2}, {name="b", id=3}]'},
    ),
    "0 is ignored, by an option": Case(
        mask=lambda i: grey(scene(i, 4)), truth=lambda i: stored(scene(i, 4), [255, 0, 1, 2]), options={"ignore": "0"},
    ),
    "MATLAB's ids from 1": Case(mask=lambda i: grey(scene(i) + np.uint8(1)), notes=("(1, 2, 3)",)),
    "16 bits": Case(mask=lambda i: grey(stored(scene(i), [0, 300, 45000], np.uint16)), notes=("(0, 300, 45000)",)),
    "32 bits": Case(mask=lambda i: tif(scene(i).astype(np.int32)), suffix="tif"),
    "floating point": Case(mask=lambda i: tif(scene(i).astype(np.float32)), suffix="tif"),
    "probabilities": Case(
        mask=lambda i: tif(stored(binary(i), [0, 0], np.float32) + stored(binary(i), [0.25, 0.75], np.float32)), truth=binary,
        suffix="tif", refused="fractions, such as 0.25", options={"threshold": 0.5},
    ),
    "-1 for no label": Case(
        mask=lambda i: tif(np.where(border(i), np.int32(-1), scene(i)).astype(np.int32)), truth=voided, suffix="tif",
        refused="--option ignore=-1", options={"ignore": "-1"},
    ),
    "-1 for no label, and a border of 255": Case(
        mask=lambda i: tif(np.where(np.arange(WIDTH) < 3, -1, voided(i).astype(np.int32)).astype(np.int32)),
        truth=lambda i: np.where(np.arange(WIDTH) < 3, 255, voided(i)).astype(np.uint8),
        suffix="tif",
        refused="--option ignore=-1",
        options={"ignore": "-1"},
        notes=("ignored: ",),
    ),
    "GIS: nodata of -9999": Case(
        mask=lambda i: tif(np.where(border(i),
        np.int32(-9999), scene(i)).astype(np.float32), tiffinfo={42113: "-9999"}), truth=voided,
        suffix="tif", notes=("(no data; ",),
    ),
    "GIS: nodata of NaN": Case(
        mask=lambda i: tif(np.where(border(i), np.nan, scene(i)).astype(np.float32)), truth=voided, suffix="tif",
        refused="--option ignore=nan", options={"ignore": "nan"},
    ),
    "GIS: nodata of 0": Case(
        mask=lambda i: tif(scene(i, 4), tiffinfo={42113: "0"}), truth=lambda i: stored(scene(i, 4), [255, 0, 1, 2]),
        suffix="tif",
        refused="0 in ", options={"ignore": "0"},
    ),
    "Cityscapes instanceIds": Case(
        mask=lambda i: grey(stored(scene(i), [7, 26000, 26001], np.uint16)), refused="ids such as 26000",
        options={"ignore": "none"},
    ),
    "numbered objects": Case(
        mask=lambda i: grey(objects(i)), truth=lambda i: (objects(i) > 0).astype(np.uint8),
        refused="as if they numbered objects: use --option threshold=1", options={"threshold": 1},
    ),
    "2 bits": Case(mask=lambda i: file(grey(scene(i)), "PNG", bits=2)),
    "4 bits": Case(mask=lambda i: file(grey(scene(i)), "PNG", bits=4)),
    "PGM of few levels": Case(
        mask=lambda i: b"P5\n# made by hand\n%d %d\n20\n" % (WIDTH, HEIGHT) + stored(scene(i), [0, 7, 20]).tobytes(),
        suffix="pgm", notes=("(0, 7, 20)",),
    ),
    "numbered objects with a border": Case(
        mask=lambda i: with_palette(np.where(border(i), 255, objects(i)), {j: (j, 0, 255 - j) for j in range(256)}),
        truth=lambda i: np.where(border(i), 255, objects(i) > 0).astype(np.uint8),
        options={"threshold": 1, "ignore": "255"},
        notes=("ignored: ", "threshold=1"),
    ),
    "numbered objects, with a class file that ignores their border": Case(
        mask=lambda i: grey(np.where(border(i), 255, objects(i))),
        truth=lambda i: np.where(border(i), 255, objects(i) > 0).astype(np.uint8),
        files={"classes.toml": 'ignore = [255]\nclasses = ["ground", "roof"]'},
        refused="unknown value in a mask",
        options={"threshold": 1},
        classes=("ground", "roof"),
    ),
    "a palette that shows one colour twice, by ids": Case(
        mask=lambda i: with_palette(scene(i), {0: (0, 0, 0), 1: (200, 0, 0), 2: (200, 0, 0)}),
        refused="indices 1, 2 show one colour, (200, 0, 0): use --option palette=ids to read indices as ids",
        options={"palette": "ids"},
    ),
    "a palette that shows one colour twice, by colours": Case(
        mask=lambda i: with_palette(scene(i), {0: (0, 0, 0), 1: (200, 0, 0), 2: (200, 0, 0)}),
        truth=lambda i: (scene(i) > 0).astype(np.uint8),
        refused="palette=colours",
        options={"palette": "colours"},
    ),
    "palettes with and without colours": Case(
        mask=lambda i: with_palette(scene(i), {1: (200, 0, 0), 2: (0, 0, 200)} if i % 2 else {}),
    ),
    "a palette of black and white, by colour": Case(
        mask=lambda i: with_palette(binary(i), {0: (0, 0, 0), 1: (255, 255, 255)}),
        truth=lambda i: binary(i) ^ 1,
        files={"classes.toml": WHITE_FIRST},
        notes=("palette masks are read by their colours",),
    ),
    "GIF and PNG": Case(
        mask=lambda i: (
            with_palette(binary(i), {0: (0, 0, 0), 1: (255, 255, 255)}) if i % 2 else grey(binary(i) * np.uint8(255))
        ),
        truth=binary,
    ),
    "big-endian 16 bits": Case(
        mask=lambda i: b"P5\n%d %d\n65535\n" % (WIDTH, HEIGHT) + stored(scene(i), [0, 7, 400], np.dtype(">u2")).tobytes(),
        suffix="pgm",
        notes=("(0, 7, 400)",),
    ),
    "150 ids": Case(
        mask=lambda i: grey((np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 7 % 150).astype(np.uint8)),
        truth=lambda i: (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 7 % 150).astype(np.uint8),
        refused="150 ids, 150 in all masks: ",
        options={"ignore": "none"},
    ),
    "an id in one pixel": Case(
        mask=lambda i: grey(np.where((np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) == 60) & (i == 2), 3, scene(i))),
        truth=lambda i: np.where((np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) == 60) & (i == 2), 3, scene(i)),
        notes=("class_3 has only 1 pixel, in masks/2.png",),
    ),
    "names of ids from 1": Case(
        mask=lambda i: grey(scene(i, 4) % 3 + 1),
        truth=lambda i: scene(i, 4) % 3 + 1,
        files={"classes.txt": "void area\nground\nroof\ntree\n"},
        notes=("no mask contains id 0 (void area)",),
    ),
    # palettes
    "VOC's palette and border": Case(
        mask=lambda i: with_palette(voided(i), {1: (128, 0, 0), 2: (0, 128, 0), 255: (224, 224, 192)}), truth=voided,
        notes=("of the pixels of all masks (255; ",),
    ),
    "palette, by colours in another order": Case(
        mask=lambda i: with_palette(stored(scene(i), [5, 3, 9]), {5: (0, 0, 0), 3: (200, 0, 0), 9: (0, 0, 200)}),
        files={"classes.toml": COLOURS},
    ),
    "palettes that differ": Case(
        mask=lambda i: with_palette(scene(i) if i % 2 else stored(scene(i), [2, 1, 0]),
                                    {0: (0, 0, 0), 1: (0, 0, 200), 2: (200, 0, 0)} if i % 2 else
                                    {2: (0, 0, 0), 1: (0, 0, 200), 0: (200, 0, 0)}),
    ),
    "a palette without colours": Case(
        mask=lambda i: with_palette(scene(i), {}), files={"classes.toml": COLOURS}, classes=("ground", "roof", "tree"),
    ),
    "a palette of greys": Case(mask=lambda i: with_palette(scene(i), {j: (j, j, j) for j in range(256)})),
    "a palette with a transparent index": Case(
        mask=lambda i: file(with_palette(scene(i), {0: (9, 9, 9), 1: (200, 0, 0), 2: (0, 0, 200)}), "PNG", transparency=0),
    ),
    # colours
    "colours": Case(mask=lambda i: rgb(scene(i), [(0, 0, 0), (0, 0, 200), (200, 0, 0)])),
    "CVAT": Case(
        mask=lambda i: rgb(scene(i)),
        files={"labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:200,0,0::\ntree:0,0,200::\n"},
        classes=("background", "roof", "tree"), notes=("classes: 3 from labelmap.txt",),
    ),
    "DeepGlobe": Case(
        mask=lambda i: rgb(scene(i)), files={"class_dict.csv": "name,r,g,b\nurban,0,0,0\nroad,200,0,0\nwater,0,0,200\n"},
        classes=("urban", "road", "water"),
    ),
    "Supervisely's human masks": Case(
        mask=lambda i: rgb(scene(i)).convert("RGBA"),
        files={"meta.json": '{"classes": [{"title": "roof", "shape": "polygon", "color": "#C80000", "id": 7723}, {"title": '
               '"tree", "shape": "bitmap", "color": "#0000C8", "id": 7724}], "tags": []}'},
        classes=("background", "roof", "tree"),
    ),
    "Supervisely's machine masks": Case(
        mask=lambda i: rgb(scene(i), [(0,) * 3, (1,) * 3, (2,) * 3]).convert("RGBA"),
        files={"obj_class_to_machine_color.json": '{"roof": [1, 1, 1], "tree": [2, 2, 2]}'},
        classes=("background", "roof", "tree"),
    ),
    "a colour in one pixel of one mask": Case(
        mask=lambda i: rgb(np.where((np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) == 60) & (i == 2), 4, scene(i)),
                           [*RAMP.tolist()[:3], (9, 9, 9), (90, 200, 30)]),
        truth=lambda i: np.where((np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) == 60) & (i == 2), 255,
                                 stored(scene(i), [0, 2, 1])).astype(np.uint8),
        refused='colour (90, 200, 30) in 1 pixel of all masks: use --option ignore="#5ac81e"', options={"ignore": "#5ac81e"},
    ),
    "colours in JPEG, with their class file": Case(
        mask=lambda i: file(rgb(scene(i)), "JPEG", quality=98, subsampling=0), suffix="jpg", files={"classes.toml": COLOURS},
        refused="--option nearest=128", options={"nearest": 128}, notes=("nearest=128: ",),
    ),
    "a flawed colour, with the class file": Case(
        mask=lambda i: rgb(scene(i), [(0, 0, 0), (200, 0, 0) if i % 2 else (198, 3, 0), (0, 0, 200)]),
        files={"classes.toml": COLOURS}, refused="if it is a flaw, --option nearest=3 reads it as roof",
        options={"nearest": 3},
    ),
    "an ignored colour": Case(
        mask=lambda i: rgb(np.where(border(i), 4, scene(i))), truth=voided,
        files={"classes.toml": 'ignore = ["#f0f0f0"]\n' + COLOURS},
    ),
    "smoothed colours": Case(
        mask=lambda i: rgb(binary(i)).filter(ImageFilter.GaussianBlur(0.5)),
        truth=lambda i: (np.asarray(rgb(binary(i)).filter(ImageFilter.GaussianBlur(0.5)))[..., 0] > 100).astype(np.uint8),
        files={"meta.json": '{"classes": [{"title": "roof", "shape": "bitmap", "color": "#c80000"}]}'},
        refused="if it is a flaw, --option nearest=",
        options={"nearest": 128},
        classes=("background", "roof"),
    ),
    # transparency
    "colours on nothing": Case(
        mask=lambda i: rgba(RAMP[scene(i)], scene(i).astype(bool) * 255), files={"classes.toml": COLOURS},
        notes=("transparent pixels are read as black",),
    ),
    "colours on nothing, without a class for it": Case(
        mask=lambda i: rgba(RAMP[scene(i)], (scene(i) > 0) * 255),
        truth=lambda i: stored(scene(i), [255, 0, 1]),
        files={"classes.toml": 'classes = [{name="roof", colour="#c80000"}, {name="tree", colour=[0,0,200]}]'},
        refused="it is transparent: use --option transparent=ignore",
        options={"transparent": "ignore"},
        notes=("(no data; ",),
    ),
    "colours under alpha 0": Case(
        mask=lambda i: rgba(np.where((scene(i) > 0)[..., None], RAMP[scene(i)], colour_noise(i)), (scene(i) > 0) * 255),
        files={"classes.toml": COLOURS},
    ),
    "infinity for no label": Case(
        mask=lambda i: tif(np.where(border(i), np.inf, scene(i)).astype(np.float32)),
        truth=voided,
        suffix="tif",
        refused="--option ignore=inf",
        options={"ignore": "inf"},
    ),
    "red under everything, the mask in alpha": Case(
        mask=lambda i: rgba(np.full((HEIGHT, WIDTH, 3), (200, 0, 0), np.uint8), binary(i) * 255.0), truth=binary,
    ),
    "white under everything, the mask in alpha": Case(
        mask=lambda i: rgba(np.full((HEIGHT, WIDTH, 3), 255, np.uint8), binary(i) * 255.0), truth=binary,
    ),
    "black on nothing": Case(mask=lambda i: rgba(np.zeros((HEIGHT, WIDTH, 3), np.uint8), binary(i) * 255.0), truth=binary),
    "grey on nothing": Case(
        mask=lambda i: grey(np.dstack([np.full((HEIGHT, WIDTH), 7, np.uint8), binary(i) * np.uint8(255)])), truth=binary,
    ),
    "transparent and black": Case(
        mask=lambda i: rgba(RAMP[scene(i)], ~border(i) * 255), truth=voided, files={"classes.toml": COLOURS},
        refused="transparent pixels and", options={"transparent": "ignore"},
    ),
    "transparent and black, alike": Case(
        mask=lambda i: rgba(RAMP[scene(i)], ~border(i) * 255),
        truth=lambda i: np.where(border(i), 0, scene(i)).astype(np.uint8),
        files={"classes.toml": COLOURS}, refused="--option transparent=black", options={"transparent": "black"},
    ),
    "a soft brush": Case(
        mask=lambda i: rgba(np.full((HEIGHT, WIDTH, 3), (200, 0, 0), np.uint8), np.asarray(soft(binary(i)))),
        truth=lambda i: (np.asarray(soft(binary(i))) >= 128).astype(np.uint8), refused="are partly transparent",
        options={"threshold": 128},
    ),
    "alpha is 0 everywhere": Case(mask=lambda i: rgba(RAMP[scene(i)], scene(i) * 0), files={"classes.toml": COLOURS}),
    # lists of classes
    "Roboflow": Case(
        mask=lambda i: grey(scene(i)), files={"_classes.csv": "Pixel Value, Class\n0, background\n1, roof\n2, tree\n"},
        classes=("background", "roof", "tree"),
    ),
    "labelme2voc": Case(
        mask=lambda i: with_palette(voided(i), {1: (128, 0, 0), 2: (0, 128, 0)}), truth=voided,
        files={"class_names.txt": "_background_\nroof\ntree\n", "labels.txt": "__ignore__\n_background_\nroof\ntree\n"},
        classes=("_background_", "roof", "tree"), notes=("other lists of classes, not used: labels.txt",),
    ),
    "ADE20K": Case(
        mask=lambda i: grey(scene(i, 4)), truth=lambda i: stored(scene(i, 4), [255, 0, 1, 2]),
        files={"objectInfo150.txt": "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.15\t11664\t1172\t1\twall\n2\t0.1\t6046\t612\t1\t"
               "building, edifice\n3\t0.08\t8265\t796\t1\tsky\n"},
        refused="--option ignore=0 if it marks pixels without a label", options={"ignore": "0"},
        classes=("wall", "building, edifice", "sky"),
    ),
    "data.yaml": Case(
        mask=lambda i: grey(scene(i)), files={"data.yaml": "train: ../train\nnc: 3\nnames: ['ground', 'roof', 'tree']\n"},
        classes=("ground", "roof", "tree"),
    ),
    "data.yaml, one name per line": Case(
        mask=lambda i: grey(scene(i)), files={"data.yaml": "names:\n  0: ground\n  1: roof\n  2: tree  # any\npath: .\n"},
        classes=("ground", "roof", "tree"),
    ),
    "id2label.json": Case(
        mask=lambda i: grey(scene(i)), files={"id2label.json": '{"0": "ground", "1": "roof", "2": "tree"}'},
        classes=("ground", "roof", "tree"),
    ),
    "a list without the background": Case(
        mask=lambda i: grey(scene(i)), files={"data.yaml": "names: [roof, tree]\n"},
        refused="list it in a classes.toml, which is used instead of data.yaml", options={"classes": "none"},
        classes=("class_0", "class_1", "class_2"),
    ),
    "a list in a folder": Case(
        mask=lambda i: rgb(scene(i)),
        files={"meta/labelmap.txt": "background:0,0,0::\nroof:200,0,0::\ntree:0,0,200::\n"},
        classes=("background", "roof", "tree"), notes=("classes: 3 from meta/labelmap.txt",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_encoding(put: Put, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    for number in range(COUNT):
        put(f"images/{number}.png", np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
        put(f"masks/{number}.{case.suffix}", case.mask(number))
    root = put("read me.md", "")
    for file_name, text in case.files.items():
        put(file_name, text)
    if case.refused:
        with pytest.raises(DataError) as raised:
            Folder(root, val=0)
        assert case.refused in str(raised.value)
        for option, value in case.options.items():
            assert re.search(rf"{option}=", str(raised.value)) or option == "classes", f"the remedy {option}={value}"
    folder = Folder(root, val=0, **case.options)
    shard(folder, "train", tmp_path / "shards")
    found = ShardSet(tmp_path / "shards/roofs/train")
    taxonomy = found.taxonomy("roofs")
    assert len(found) == COUNT
    for sample in found:
        assert sample.label is not None
        expected = case.truth(int(sample.key))
        assert np.array_equal(taxonomy.map(sample.label), expected), sample.key
    if case.classes:
        assert taxonomy.names == case.classes
    for words in case.notes:
        assert any(words in note for note in folder.notes()), (words, folder.notes())


def colour_noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


REFUSED: dict[str, tuple[Callable[[int], Any], str, dict[str, str], dict[str, Any], str]] = {
    "black everywhere": (lambda i: grey(scene(i) * 0), "png", {}, {}, "all labeled pixels are class_0; a model"),
    "white everywhere": (lambda i: grey(scene(i) * 0 + 255), "png", {}, {}, "all labeled pixels are foreground"),
    "one class of three": (
        lambda i: grey(scene(i) * 0 + 1), "png", {"classes.txt": "a\nb\nc\n"}, {}, "all labeled pixels are b; a model needs",
    ),
    "one class and ignored pixels": (
        lambda i: grey(np.where(binary(i), 1, 255).astype(np.uint8)), "png", {}, {}, "255 in 9", 
    ),
    "ignored everywhere": (
        lambda i: grey(scene(i) * 0 + 255), "png", {"classes.toml": 'ignore = [255]\nclasses = ["a", "b"]'}, {},
        "no mask has a labeled pixel, and 255 is ignored (100.0% of all pixels); if that is a class, list it in classes.toml "
        "instead of in `ignore`",
    ),
    "an option that ignores a class": (
        lambda i: grey(scene(i)), "png", {"classes.txt": "a\nb\nc\n"}, {"ignore": "1"},
        "b is a class of classes.txt (id 1); remove it there, or remove the option",
    ),
    "an option against the class file": (
        lambda i: grey(scene(i)), "png", {"classes.toml": 'ignore = [2]\nclasses = ["a", "b"]'}, {"ignore": "none"},
        "classes.toml says what is ignored; change its `ignore`, or remove the option",
    ),
    "white that is a class and ignored": (
        lambda i: grey(binary(i) * np.uint8(255)), "png", {"classes.toml": "ignore = [255]\n" + BLACK_WHITE}, {},
        "gives the masks two meanings",
    ),
    "threshold on colours": (lambda i: rgb(scene(i)), "png", {}, {"threshold": 128}, "coloured; threshold is for grey masks"),
    "nearest without colours": (
        lambda i: rgb(scene(i)), "png", {}, {"nearest": 3}, "needs the colours of the classes; write them into classes.toml",
    ),
    "numbered objects in colours": (
        lambda i: rgb(objects(i), np.random.default_rng(i).integers(0, 256, (9, 3)) * (np.arange(9) > 0)[:, None]),
        "png", {}, {},
        "colours are in one mask each, as if they numbered objects",
    ),
    "smoothed colours": (
        lambda i: rgb(binary(i)).filter(ImageFilter.GaussianBlur(0.5)), "png", {}, {},
        "rare colours between common ones",
    ),
    "palettes that differ, one without colours": (
        lambda i: with_palette(
            stored(scene(i), [0, 2, 1]) if i == 1 else scene(i),
            {} if i == 0 else {1: (200, 0, 0), 2: (0, 0, 200)} if i > 1 else {2: (200, 0, 0), 1: (0, 0, 200)},
        ),
        "png", {}, {}, "all its indices show (0, 0, 0), and other masks differ in their palettes: use --option palette=ids",
    ),
    "several pages": (
        lambda i: file(grey(scene(i)), "TIFF", save_all=True, append_images=[grey(binary(i))]), "tif", {}, {},
        "2 pages in one file",
    ),
    "an animation": (
        lambda i: file(grey(scene(i) * 9), "GIF", save_all=True, append_images=[grey(binary(i) * 9)]), "gif", {}, {},
        "2 pages in one file",
    ),
    "grey and alpha of 16 bits": (
        lambda i: png_chunks(16, 4, np.dstack([scene(i), scene(i)]).astype(">u2")), "png", {}, {},
        "16 bits per band, of which 8 can be read",
    ),
    "lists of classes that differ": (
        lambda i: grey(scene(i)), "png",
        {"a/_classes.csv": "id, class\n0, a\n1, b\n2, c\n", "b/_classes.csv": "id, class\n0, a\n1, c\n2, b\n"},
        {}, "differs from b/_classes.csv; choose one, as in --option classes=a/_classes.csv",
    ),
    "a table of classes that is broken": (
        lambda i: grey(scene(i)), "png", {"class_dict.csv": "name,r,g,b\na,0,0,900\n"}, {},
        "can't be read as a list of classes (colour (0, 0, 900); bands are 0 to 255)",
    ),
    "32 bits": (
        lambda i: tif(scene(i).astype(np.int32) * 70_000), "tif", {}, {}, "values 0 to 140000; ids are 0 to 65535",
    ),
    "the last of an option": (lambda i: grey(scene(i)), "png", {}, {"ignore": "roof"}, "'roof' is neither an id nor a colour"),
    "threshold of 0": (lambda i: grey(scene(i)), "png", {}, {"threshold": 0}, "option threshold=0: expected a number above 0"),
    "nearest of 0": (lambda i: grey(scene(i)), "png", {}, {"nearest": 0}, "option nearest=0: expected 1 to 255"),
    "transparent": (lambda i: grey(scene(i)), "png", {}, {"transparent": "no"}, "option transparent=no: unknown value 'no'"),
    "two options": (lambda i: grey(scene(i)), "png", {}, {"threshold": 2, "nearest": 2}, "keep one"),
}  # fmt: skip


def png_chunks(depth: int, kind: int, rows: np.ndarray) -> bytes:
    """A PNG of any depth and kind."""
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(body)),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(put: Put, name: str) -> None:
    mask, suffix, files, options, words = REFUSED[name]
    for number in range(COUNT):
        put(f"images/{number}.png", colour_noise(number))
        put(f"masks/{number}.{suffix}", mask(number))
    root = put("read me.md", "")
    for file_name, text in files.items():
        put(file_name, text)
    with pytest.raises(DataError, match=re.escape(words)) as raised:
        Folder(root, val=0, **options)
    assert len(str(raised.value).splitlines()) <= 3 + COUNT


def test_what_is_left_out_is_counted(put: Put) -> None:
    for number in range(COUNT):
        put(f"images/{number}.png", colour_noise(number))
        put(f"masks/{number}.png", voided(number) if number else scene(0) * 0 + 255)
    folder = Folder(put("classes.toml", 'ignore = [255]\nclasses = ["a", "b", "c", "d"]'), val=0)
    count = sum(int((voided(number) == 255).sum()) for number in range(1, COUNT)) + HEIGHT * WIDTH
    assert (
        f"ignored: {count / (COUNT * HEIGHT * WIDTH):.1%} of the pixels of all masks (255; {count} pixels in 6 of 6 masks)"
        in folder.notes()
    )
    assert "without any labeled pixel: 1 mask (first masks/0.png)" in folder.notes()
    assert "classes without a pixel in any mask: d" in folder.notes()

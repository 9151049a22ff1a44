"""Masks for people to look at: in colours, over their image, and side by side on a contact sheet."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semiseg.data.errors import DataError
from semiseg.data.taxonomy import Taxonomy

Cell: TypeAlias = Image.Image | np.ndarray | None
"""A picture (PIL, or uint8 [h, w, 3]), or class ids [h, w] to be painted, or nothing."""

_PAPER, _INK, _FAINT, _EDGE = (255, 255, 255), (28, 28, 30), (110, 110, 115), (214, 214, 218)
_MARGIN, _GAP = 40, 16


def colourise(ids: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """The taxonomy's colours for class ids [h, w], as uint8 [h, w, 3]; ignored pixels are hatched in dark greys.

    Raises DataError for an id that is neither a class nor `ignore`.
    """
    _check_ids(ids, taxonomy)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(taxonomy.colours)] = taxonomy.colours
    painted = palette[ids]
    rows, columns = np.ogrid[: ids.shape[0], : ids.shape[1]]
    hatch = np.where((rows + columns) % 8 < 3, 104, 52).astype(np.uint8)[..., None]
    return np.where((ids == taxonomy.ignore)[..., None], hatch, painted)


def overlay(image: Image.Image | np.ndarray, ids: np.ndarray, taxonomy: Taxonomy, opacity: float = 0.55) -> Image.Image:
    """An image tinted by its class ids [h, w], with a thin line along every boundary that shows the alignment.

    `opacity`: 0 shows the image alone, 1 the colours. Ignored pixels stay untinted and darker. Raises DataError if
    image and ids differ in size.
    """
    photo = _picture(image)
    if photo.size != ids.shape[::-1]:
        raise DataError(
            f"an image of {photo.width}x{photo.height} has ids of {'x'.join(map(str, ids.shape[::-1]))} pixels; "
            "resize the ids to the image's size first (nearest neighbour)"
        )
    pixels = np.asarray(photo, np.float32)
    tinted = pixels + opacity * (colourise(ids, taxonomy) - pixels)
    tinted = np.where((ids == taxonomy.ignore)[..., None], pixels * (1 - 0.6 * opacity), tinted)
    edge = _boundaries(ids)
    tinted[edge] += 0.75 * (255 - tinted[edge])
    return Image.fromarray(np.rint(tinted).astype(np.uint8))


def contact_sheet(
    rows: Sequence[Sequence[Cell]],
    *,
    titles: Sequence[str],
    taxonomy: Taxonomy | None = None,
    classes: Iterable[int] | None = None,
    captions: Sequence[str] | None = None,
    width: int = 1600,
) -> Image.Image:
    """Lay out pictures and masks in a grid, with a title per column, a caption per row, and a legend of colours below.

    Pictures keep their aspect ratio; larger ones shrink to their column, smaller ones grow by integer factors, so that a
    mask's pixels stay square and sharp. Cells of class ids are painted in the colours of `taxonomy`; the legend shows all
    of its classes or those in `classes`. `width`: maximum width of the sheet in pixels.
    Raises DataError if the numbers of rows, titles and captions differ, or ids are given without a taxonomy.
    """
    _check_layout(rows, titles, captions)
    columns = len(titles)
    available = (width - 2 * _MARGIN - (columns - 1) * _GAP) // columns
    if available < 16:
        raise DataError(f"a sheet {width} pixels wide has no room for {columns} columns; give it a larger width")
    cells = [[_fitted(cell, available, taxonomy) for cell in row] for row in rows]
    column = max(cell.width for row in cells for cell in row if cell)
    span = columns * column + (columns - 1) * _GAP

    title, small = ImageFont.load_default(20), ImageFont.load_default(15)
    shown = [] if taxonomy is None else _swatches(taxonomy, classes, cells_ignore=_any_ignored(rows, taxonomy))
    per_line, pitch = _legend_grid(shown, small, span)
    heights = [max((cell.height for cell in row if cell), default=0) + (34 if captions else 0) for row in cells]
    legend = 0 if not shown else 28 + 28 * -(-len(shown) // per_line) - 8
    height = _MARGIN + 36 + sum(heights) + _GAP * (len(rows) - 1) + legend + _MARGIN - (10 if captions else 0)
    sheet = Image.new("RGB", (span + 2 * _MARGIN, height), _PAPER)
    draw = ImageDraw.Draw(sheet)

    for i, text in enumerate(titles):
        draw.text((_MARGIN + i * (column + _GAP), _MARGIN + 18), _clip(text, title, column), _INK, title, anchor="ls")
    top = _MARGIN + 36
    for j, row in enumerate(cells):
        for i, cell in enumerate(row):
            if cell:
                left = _MARGIN + i * (column + _GAP)
                draw.rectangle((left - 1, top - 1, left + cell.width, top + cell.height), outline=_EDGE)
                sheet.paste(cell, (left, top))
        top += heights[j]
        if captions:
            draw.text((_MARGIN, top - 12), _clip(captions[j], small, span), _FAINT, small, anchor="ls")
        top += _GAP
    top += 28 - _GAP
    for i, (swatch, name) in enumerate(shown):
        left, line = _MARGIN + pitch * (i % per_line), top + 28 * (i // per_line)
        sheet.paste(swatch, (left, line))
        draw.rectangle((left, line, left + 19, line + 19), outline=_EDGE)
        draw.text((left + 28, line + 10), _clip(name, small, span - 28), _INK, small, anchor="lm")
    return sheet


def _check_ids(ids: np.ndarray, taxonomy: Taxonomy) -> None:
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise DataError(f"class ids must be an integer array [h, w], not {ids.dtype} {list(ids.shape)}")
    strange = ids[(ids != taxonomy.ignore) & ((ids < 0) | (ids >= len(taxonomy.names)))]
    if strange.size:
        raise DataError(
            f"id {strange[0]} is not a class of taxonomy '{taxonomy.name}' (0..{len(taxonomy.names) - 1}, "
            f"{taxonomy.ignore} = ignore); give class ids, as returned by Taxonomy.map, not raw ids"
        )


def _boundaries(ids: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour is of another class."""
    edges = np.zeros(ids.shape, bool)
    edges[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    edges[:-1] |= ids[1:] != ids[:-1]
    return edges


def _picture(image: Image.Image | np.ndarray) -> Image.Image:
    if not isinstance(image, np.ndarray):
        return image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"a picture must be a uint8 array [h, w, 3], not {image.dtype} {list(image.shape)}")
    return Image.fromarray(image)


def _check_layout(rows: Sequence[Sequence[Cell]], titles: Sequence[str], captions: Sequence[str] | None) -> None:
    if not any(cell is not None for row in rows for cell in row):
        raise DataError("the contact sheet has no pictures; give it at least one")
    for j, row in enumerate(rows):
        if len(row) != len(titles):
            raise DataError(f"row {j} of the contact sheet has {len(row)} cells under {len(titles)} titles")
    if captions is not None and len(captions) != len(rows):
        raise DataError(f"the contact sheet has {len(rows)} rows and {len(captions)} captions")


def _fitted(cell: Cell, available: int, taxonomy: Taxonomy | None) -> Image.Image | None:
    """A cell's picture at its size on the sheet."""
    if cell is None:
        return None
    ids = cell if isinstance(cell, np.ndarray) and cell.ndim == 2 else None
    if ids is not None and taxonomy is None:
        raise DataError("a cell of the contact sheet holds class ids; give a taxonomy to paint them with")
    full = _picture(cell).size if ids is None else ids.shape[::-1]
    # A portrait may be 1.5 times as tall as its column is wide.
    scale = min(available / full[0], 1.5 * available / full[1])
    scale = float(int(scale)) if scale >= 1 else scale
    size = max(1, round(full[0] * scale)), max(1, round(full[1] * scale))
    if ids is None or taxonomy is None:
        return _picture(cell).resize(size, Image.Resampling.LANCZOS)
    nearest = np.ix_(
        *((np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(size[::-1], ids.shape, strict=True))
    )
    return Image.fromarray(colourise(ids[nearest], taxonomy))


def _any_ignored(rows: Sequence[Sequence[Cell]], taxonomy: Taxonomy) -> bool:
    masks = (cell for row in rows for cell in row if isinstance(cell, np.ndarray) and cell.ndim == 2)
    return any((mask == taxonomy.ignore).any() for mask in masks)


def _swatches(
    taxonomy: Taxonomy, classes: Iterable[int] | None, *, cells_ignore: bool
) -> list[tuple[Image.Image, str]]:
    """A square in each class's colour, with its name; also the hatch for ignored pixels if the sheet shows any."""
    shown = sorted(set(range(len(taxonomy.names)) if classes is None else classes))
    _check_ids(np.array([shown], np.int64), taxonomy)
    names = {number: taxonomy.names[number] for number in shown if number != taxonomy.ignore}
    if cells_ignore or taxonomy.ignore in shown:
        names[taxonomy.ignore] = "ignored"
    return [
        (Image.fromarray(colourise(np.full((20, 20), number, np.uint8), taxonomy)), name)
        for number, name in names.items()
    ]


def _legend_grid(
    shown: list[tuple[Image.Image, str]], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, span: int
) -> tuple[int, int]:
    """How many entries of the legend go on a line, and the distance between them."""
    pitch = min(max((28 + int(font.getlength(name)) + 28 for _, name in shown), default=1), span)
    lines = -(-len(shown) // max(1, (span + 28) // pitch))
    return -(-len(shown) // max(1, lines)), pitch  # lines of equal length, so that the last one is not almost empty


def _clip(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, shortened with dots if it is wider than `width`."""
    if font.getlength(text) <= width:
        return text
    fits = bisect_right(range(len(text)), width, key=lambda length: font.getlength(text[:length] + "..."))
    return text[: max(fits - 1, 0)].rstrip() + "..."

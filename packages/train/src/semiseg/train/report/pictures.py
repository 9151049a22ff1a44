"""The collected predictions side by side on a page, with image and ground truth if the data is available."""

from base64 import b64encode
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from semiseg.data import DataError, Pool, SemisegError, ShardSet
from semiseg.train.report.runs import PREDICTIONS, read_predictions
from semiseg.train.report.study import Study

LARGEST = 1 << 26  # pixels of a mask
WIDTH = 480  # pixels of a picture on the page, at most


def pictures(study: Study, shards: str | None) -> str:
    """A section of the page. Raises DataError if `shards` lacks the images that were predicted."""
    predictions = study.index.predictions
    if not predictions:
        how = "<code>semiseg collect RUNS --to RESULTS --predict 4</code>"
        return f"<h2>Predictions</h2>\n<p>None were collected; {how} adds some.</p>\n"
    pool = _open(shards, predictions)
    classes = study.index.classes.get(predictions["domain"], {})
    names, colours = classes.get("names", []), classes.get("colours", [])
    now = {run.name: run.results["last"].get("miou") for run in study.runs}
    shown = {
        method: run for method, run in predictions["runs"].items() if now.get(run) == predictions["scores"].get(run)
    }
    masks = read_predictions(study.folder)
    blocks = ""
    for key in predictions["keys"]:
        cells = _given(pool, predictions, key, colours) if pool else []
        for method, run in shown.items():
            mask = f"{run}/{key}.png"
            try:
                with Image.open(BytesIO(masks[mask]), formats=("PNG",)) as opened:
                    if opened.width * opened.height > LARGEST:
                        raise ValueError(f"{opened.width}x{opened.height} pixels")
                    cells.append((method, f"{key} as predicted by {method}", _png(opened)))
            except (KeyError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                place = study.folder / PREDICTIONS
                raise SemisegError(
                    f"{place}: {mask} is missing or damaged ({error}); collect with --predict again"
                ) from None
        figures = "".join(
            f"<figure><img alt='{escape(alt)}' src='{source}'><figcaption>{escape(title)}</figcaption></figure>"
            for title, alt, source in cells
        )
        blocks += f"<h3>{escape(key)}</h3><div class='masks'>{figures}</div>\n"
    legend = "".join(f"<li>{swatch(colour)}{escape(name)}</li>" for name, colour in zip(names, colours, strict=False))
    runs = list(predictions["runs"].values())
    absent = [method for method in study.methods if method not in shown]
    notes = (
        " Grey in the ground truth is unlabeled."
        if pool
        else " The page was made without the data (<code>--shards</code>), so it has no images and no ground truth."
    )
    notes += f" Not collected, or by weights that have changed since: {escape(', '.join(absent))}." if absent else ""
    at = study.place(study.index.runs[runs[0]].get(study.index.across or "", ""))
    where = f" at {escape(at)}" if at else ""
    return (
        f"<h2>Predictions</h2>\n<p class='note'>By the last weights of one run of each method{where}, on images of the "
        f"validation split ({escape(predictions['rule'])}).{notes}</p>\n<ul class='key'>{legend}</ul>\n{blocks}"
    )


def swatch(colour: list[int]) -> str:
    """A square of a class's colour."""
    red, green, blue = (int(part) for part in colour)
    return f"<span class='swatch' style='background:rgb({red},{green},{blue})'></span>"


def _open(shards: str | None, predictions: dict[str, Any]) -> ShardSet | Pool | None:
    if shards is None:
        return None
    sets = [ShardSet(f"{shards.rstrip('/')}/{predictions['dataset']}/{split}") for split in predictions["splits"]]
    pool = sets[0] if len(sets) == 1 else Pool(sets)
    if lost := set(predictions["keys"]) - set(pool.keys()):
        raise DataError(
            f"{pool.url} has no sample {min(lost)}, which was predicted; give the shards that the runs were scored on"
        )
    return pool


def _given(
    pool: ShardSet | Pool, predictions: dict[str, Any], key: str, colours: list[list[int]]
) -> list[tuple[str, str, str]]:
    """Title, alternative text and address of the image and of its ground truth."""
    sample = pool[pool.keys().index(key)]
    photo = sample.image.convert("RGB")
    photo.thumbnail((WIDTH, WIDTH))
    file = BytesIO()
    photo.save(file, "JPEG", quality=80)
    cells = [("image", f"{key}, the image", f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}")]
    if sample.label is not None:
        truth = Image.fromarray(pool.taxonomy(predictions["taxonomy"]).map(sample.label).astype(np.uint8)).convert("P")
        flat = [value for colour in colours for value in colour]
        truth.putpalette(flat + [128] * (768 - len(flat)))
        cells.append(("ground truth", f"{key}, its ground truth", _png(truth)))
    return cells


def _png(mask: Image.Image) -> str:
    """A mask with its palette as a data URL, no wider than the page shows it."""
    height = max(1, round(mask.height * min(1, WIDTH / mask.width)))
    file = BytesIO()
    mask.resize((min(WIDTH, mask.width), height), Image.Resampling.NEAREST).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"

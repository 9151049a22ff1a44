"""The images to predict: files, found in folders as data sets find theirs, or the samples of shards."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from semiseg.data import (
    Conversion,
    DataError,
    Pool,
    Rendered,
    ShardSet,
    Tree,
    bits_for,
    deepest,
    image_suffixes,
    open_image,
    rgb,
    unknown,
    unreadable_suffixes,
)

OPTIONS = ("bits", "range", "bands")  # of `Reading`


@dataclass(frozen=True)
class InputImage:
    """An image to predict. place: for messages. name: path of its mask in the output folder, without a suffix.

    read: its pixels. pixels: how many there are, found without decoding them.
    """

    place: str
    name: Path
    read: Callable[[], Rendered | Image.Image]
    pixels: Callable[[], int] = int


def read(source: InputImage) -> Rendered:
    """The image. Raises DataError with its place if it cannot be read."""
    try:
        found = source.read()
    except OSError as error:
        raise DataError(f"{shown(source.place)}: can't be read ({error.strerror or error})") from error
    except (DataError, ValueError, SyntaxError) as error:
        raise DataError(f"{shown(source.place)}: not a readable image ({error})") from error
    return Rendered(found, found) if isinstance(found, Image.Image) else found


def conversion_of(shards: ShardSet | Pool) -> dict[str, Any]:
    """How the images of shards were made, for the metadata of a model: the kind of image, and the settings of `Conversion`."""
    first = shards.sets[0] if isinstance(shards, Pool) else shards
    manifest = getattr(first, "base", first).manifest
    return {"image": manifest.image, **{name: value for name, value in manifest.settings.items() if name != "size"}}


def saved_conversion(metadata: Mapping[str, Any], domain: str, options: Sequence[str] = ()) -> tuple[Conversion, str]:
    """The conversion and the kind of image ("jpg" or "png") of the shards that a model was trained on.

    options: NAME=VALUE from the command line, which take precedence. Models that do not record it have the default.
    """
    saved = metadata.get("conversions", {})
    settings = dict(saved.get(domain) or {}) if isinstance(saved, Mapping) else {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in OPTIONS or not value:
            raise DataError(f"--option {shown(option)}: {unknown('option', name, OPTIONS)}, as in --option bits=12")
        settings[name] = value
    return Conversion.of(settings), str(settings.get("image", "png"))


def find_images(
    places: Sequence[Path], out: Path | None = None, conversion: Conversion | None = None, kind: str = "png"
) -> tuple[list[InputImage], list[str]]:
    """Image files, sorted, and notes on what was left out or inferred.

    Folders are searched recursively, except for hidden files, those of systems, and `out`; masks keep their relative paths.
    Links are followed. Deep grey images of a model that does not say how many bits are in use are scaled together.
    Raises DataError for a place that does not exist, if there is no image, for two images whose masks would have the same
    name, and for masks that would overwrite images or be found as images by the next search.
    """
    to = None if out is None else out.resolve()
    found: dict[Path, Path] = {}  # file -> name
    notes: Counter[str] = Counter()
    for place in places:
        if place.is_dir():
            if place.resolve() == to:
                raise DataError(
                    f"--out {out} is the folder of the images; masks in it would be mistaken for images; choose another"
                )
            for file in _in_folder(place, notes):
                if to is None or not file.resolve().is_relative_to(to):
                    found.setdefault(file, file.relative_to(place))
        elif place.is_file():
            found.setdefault(place, Path(place.name))
        else:
            raise DataError(f"{shown(place)}: no such file or folder")
    said = [f"left out: {why}: {count}" for why, count in sorted(notes.items())]
    if not found:
        looked = f"looked for {', '.join(sorted(image_suffixes()))}"
        raise DataError("\n".join([f"no images in {', '.join(map(shown, places))}; {looked}", *said]))
    _check_names(found, out)
    conversion, more = _scaled_together(list(found), conversion or Conversion())
    images = [
        InputImage(str(file), name.with_suffix(""), partial(_of_file, file, conversion, kind), partial(_pixels, file))
        for file, name in found.items()
    ]
    return images, said + more


def images_of(shards: ShardSet, conversion: Conversion | None = None) -> list[InputImage]:
    """The images of a split, labeled or not; masks are named by key, as the Cityscapes server expects.

    Images of another size than those that the model was trained on are resized like photographs.
    """

    def read(index: int) -> Rendered:
        image = rgb(shards[index].image)
        return Rendered(image if conversion is None else conversion.resized(image), image)

    keys, sizes = shards.keys(), shards.sizes()
    return [
        InputImage(f"{shards.url}: sample {key}", Path(key), partial(read, i), partial(int, sizes[i].prod()))
        for i, key in enumerate(keys)
    ]


def shown(text: object) -> str:
    """A name for a message, without control characters."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def _in_folder(place: Path, notes: Counter[str]) -> list[Path]:
    """The image files of a folder; counts in `notes` what else was found."""
    tree, readable, foreign = Tree.open(place), image_suffixes(), unreadable_suffixes()
    files = []
    for name in tree.names():
        suffix = Path(name).suffix.lower()
        if suffix in readable:
            files.append(place / name)
        elif suffix in foreign:
            notes[f"{suffix} files, which can't be read here ({foreign[suffix]})"] += 1
    for why in tree.refused.values():
        twice = why.endswith("which is read already")
        notes["links to folders that are read already" if twice else "broken links"] += 1
    return files


def _check_names(found: Mapping[Path, Path], out: Path | None) -> None:
    taken: dict[Path, Path] = {}
    for file, name in found.items():
        if out is not None and (target := out / name.with_suffix(".png")).resolve() == file.resolve():
            raise DataError(f"{shown(target)} is an image that its mask would overwrite; choose another --out")
        other = taken.setdefault(name.with_suffix(""), file)
        if other != file:
            masks = shown(name.with_suffix(".png"))
            raise DataError(
                f"the masks of {shown(other)} and {shown(file)} would both be {masks}; predict them separately"
            )


def _scaled_together(files: Sequence[Path], conversion: Conversion) -> tuple[Conversion, list[str]]:
    """The conversion with the bits that are in use in the deep images of `files`, unless it is known, and a note on them."""
    reading = conversion.reading
    if reading.bits is not None:
        return conversion, []
    kinds = {file: _deepest(file) for file in files}
    if reading.range is not None and not any(floating for _, floating in kinds.values()):
        return conversion, []
    tops = [top for top, _ in kinds.values() if top is not None]
    if not tops:
        return conversion, []
    bits = bits_for(max(tops))
    note = (
        f"{len(tops)} image{'s' * (len(tops) != 1)} of more than 8 bits, values up to {max(tops)}: scaled from {bits} to 8 "
        "bits; the model's shards do not say how many bits are in use: set them with --option bits=..."
    )
    return replace(conversion, reading=replace(reading, bits=bits)), [note]


def _deepest(file: Path) -> tuple[int | None, bool]:
    """The largest value of a grey image of more than 8 bits, and whether a file has floating point numbers."""
    try:
        with file.open("rb") as stream:
            return deepest(stream)
    except (OSError, DataError):  # reported when it is read
        return None, False


def _pixels(file: Path) -> int:
    try:
        with file.open("rb") as stream, open_image(stream) as picture:
            return picture.width * picture.height
    except (OSError, DataError):  # as above
        return 0


def _of_file(file: Path, conversion: Conversion, kind: str) -> Rendered:
    return conversion.of_file(file.read_bytes(), kind)


def describe(conversion: Conversion) -> str:
    """How photographs are converted, for a note; "" if they are not."""
    settings = conversion.settings()
    words = {"resize": "size", "format": "format"}
    return ", ".join(f"{words.get(name, name)} {value}" for name, value in settings.items())

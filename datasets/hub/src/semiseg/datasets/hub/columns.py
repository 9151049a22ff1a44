"""The columns of images, masks, keys and tags, found by type and by common names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semiseg.data import DataError
from semiseg.datasets.hub.rows import Rows

NONE = "none"  # value of the option mask for a data set without masks
_IMAGES = ("image", "images", "img", "pixel_values", "picture", "photo", "rgb", "input", "jpg", "jpeg", "png")
_MASKS = (
    "label", "mask", "labels", "masks", "segmentation_mask", "semantic_mask", "segmentation", "semantic_segmentation",
    "annotation", "annotations", "semantic", "seg", "seg_mask", "label_map", "gt", "ground_truth", "target",
)  # fmt: skip
_KEYS = ("key", "__key__", "image_id", "id", "name", "file_name", "filename", "image_name")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of columns: images, masks (None: no masks), candidates for keys, and tags."""

    image: str
    mask: str | None
    keys: tuple[str, ...]
    tags: str | None
    key_given: bool  # the user named the key column, so it must be valid


def find_columns(
    where: str,
    splits: Mapping[str, Rows],
    *,
    image: str | None,
    mask: str | None,
    key: str | None,
    tags: str | None,
) -> Columns:
    """The columns given by the user, or found; the DataError lists all columns with their types.

    Images have the type Image; masks the type Image or integers [h, w]. Columns given by the user may also be binary.
    """
    features = next(iter(splits.values())).features
    for name, rows in splits.items():
        if set(rows.features) != set(features):
            lists = f"{', '.join(sorted(features))} and, in '{name}', {', '.join(sorted(rows.features))}"
            raise DataError(
                f"{where}: its splits have different columns ({lists}); choose splits with --option splits=NAME,NAME"
            )
    for option, column in (("image", image), ("mask", mask), ("key", key), ("tags", tags)):
        if column is not None and column not in features and not (option == "mask" and column == NONE):
            raise _error(where, f"{option}={column}: there is no such column", features)
    if mask is None:
        choices = [name for name, feature in features.items() if _is_mask(feature) and name != image]
        chosen_image = image or _choose(where, "image", _pictures(features, choices), _IMAGES, features)
        chosen_mask = _choose(where, "mask", [name for name in choices if name != chosen_image], _MASKS, features)
    else:
        pictures = [name for name, feature in features.items() if _is_image(feature) and name != mask]
        chosen_image = image or _choose(where, "image", pictures, _IMAGES, features)
        chosen_mask = mask
    for option, name, fits in (
        ("image", chosen_image, _is_file),
        ("mask", chosen_mask, lambda f: _is_mask(f) or _is_file(f)),
    ):
        if name in features and not fits(features[name]):
            raise _error(where, f"{option}={name}: this column has an unsuitable type", features)
    texts = [name for name in _KEYS if name in features and _is_scalar(features[name])]
    return Columns(
        image=chosen_image,
        mask=None if chosen_mask == NONE and NONE not in features else chosen_mask,
        keys=(key,) if key is not None else tuple(texts),
        tags=tags,
        key_given=key is not None,
    )


def class_names(feature: Any) -> list[str] | None:
    """The names listed by a type: a ClassLabel, alone or in lists."""
    while feature is not None and not getattr(feature, "names", None):
        feature = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return list(feature.names) if feature is not None else None


def _pictures(features: Mapping[str, Any], masks: list[str]) -> list[str]:
    """Columns that may hold the images. If several may, those named like a mask are excluded."""
    found = [name for name, feature in features.items() if _is_image(feature)]
    likely = [name for name in found if _plain(name) not in _MASKS]
    return likely if len(found) > 1 and likely else found


def _choose(where: str, option: str, choices: list[str], usual: tuple[str, ...], features: Mapping[str, Any]) -> str:
    """The only choice, or the one with the most usual name."""
    ranked = sorted((usual.index(_plain(name)), name) for name in choices if _plain(name) in usual)
    if ranked and (len(ranked) == 1 or ranked[0][0] < ranked[1][0]):
        return ranked[0][1]
    if len(choices) == 1:
        return choices[0]
    what = f"{len(choices)} columns may hold the {option}s" if choices else f"no column holds {option}s"
    hint = f"; if there are no masks, use --option mask={NONE}" if option == "mask" else ""
    raise _error(where, what, features, f"name one with --option {option}=COLUMN{hint}")


def _error(where: str, what: str, features: Mapping[str, Any], remedy: str = "correct the option") -> DataError:
    listing = "\n".join(f"  {name}: {_text(feature)}" for name, feature in features.items())
    return DataError(f"{where}: {what}; {remedy}. Its columns:\n{listing}")


def _text(feature: Any) -> str:
    """A short description of a type: ClassLabels may list hundreds of names."""
    names = class_names(feature)
    text = f"{type(feature).__name__} of {len(names)} classes" if names else str(feature)
    return text if len(text) < 100 else text[:97] + "..."


def _plain(name: str) -> str:
    """ "image.jpg" (of a WebDataset) and "Image" both become "image"."""
    return name.split(".")[0].lower()


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _is_file(feature: Any) -> bool:
    return _is_image(feature) or getattr(feature, "dtype", None) in ("binary", "large_binary")


def _is_mask(feature: Any) -> bool:
    if _is_image(feature):
        return True
    if type(feature).__name__ == "Array2D":
        return "int" in feature.dtype
    inner = _inside(_inside(feature))
    return inner is not None and "int" in str(getattr(inner, "dtype", ""))


def _inside(feature: Any) -> Any:
    """The type of the items of a list; None if the type is not a list."""
    if isinstance(feature, list):
        return feature[0] if len(feature) == 1 else None
    return getattr(feature, "feature", None)


def _is_scalar(feature: Any) -> bool:
    kind = str(getattr(feature, "dtype", ""))
    return type(feature).__name__ == "Value" and (kind in ("string", "large_string") or "int" in kind)

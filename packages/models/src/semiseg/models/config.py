"""Read config.json of a saved model: every setting has the type and range that the network needs, or one error says why not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMAT = "semiseg-segmenter/1"
LARGEST = 16_000_000  # bytes of a config.json: far more than the names of all classes take
OPTIONAL = ("low_stride", "levels", "context_rates", "context_width")  # missing in older files, which have the default

_MOST = 1 << 16  # of channels, classes and pixels of a stride; the weights say exactly how many

_Check = tuple[str, Callable[[Any], bool]]  # what is expected, in words, and whether a value is that


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and metadata. Raises ValueError, with the path, for anything that `save_pretrained` does not write."""
    content = _read_json(path)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT or not isinstance(content.get("model"), dict):
        raise ValueError(
            f"{path}: format is {_shown(found)}, expected {_shown(FORMAT)}; it was not written by save_pretrained"
        )
    settings, metadata = content["model"], content.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ValueError(f"{path}: metadata is {_shown(metadata)}, expected a table; save the model again")
    for name in _CHECKS:
        if name not in settings and name not in OPTIONAL:
            raise ValueError(f"{path}: model.{name} is missing; was the file edited? Save the model again")
    for name, value in settings.items():
        if name not in _CHECKS:
            raise ValueError(
                f"{path}: model.{_shown(name)} is unknown; was the file written by a newer version? "
                "Update the package: pip install -U semiseg-models"
            )
        expected, fits = _CHECKS[name]
        if not fits(value) and not (value is None and name in OPTIONAL):
            raise ValueError(
                f"{path}: model.{name} is {_shown(value)}, expected {expected}; was the file edited? Save the model again"
            )
    return settings, metadata


def _read_json(path: Path) -> Any:
    with path.open("rb") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(
            f"{path}: {path.stat().st_size / 1e6:.0f} MB, but a config.json has a few kB; save the model again"
        )
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply for a config.json; save the model again") from None
    except ValueError as error:  # not UTF-8, not JSON, numbers of thousands of digits
        raise ValueError(f"{path}: not JSON ({error}); save the model again") from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _whole(least: int, most: int) -> _Check:
    words = f"an integer, {least} to {most}" if least < most else f"{least}"
    return words, lambda value: _is_whole(value, least, most)


def _several(most: int, least: int) -> _Check:
    def fits(value: Any) -> bool:
        return isinstance(value, list) and len(value) <= 32 and all(_is_whole(item, least, most) for item in value)

    return f"a list of integers, each {least} to {most}", fits


def _text() -> _Check:
    return "a name", lambda value: isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _three(least: float, most: float) -> _Check:
    def fits(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(_is_number(item, least, most) for item in value)

    return f"three numbers, each {least:g} to {most:g}", fits


def _counts(value: Any) -> bool:
    named = isinstance(value, dict) and 0 < len(value) <= 1000
    return named and all(len(name) <= 200 and _is_whole(count, 2, _MOST) for name, count in value.items())


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any, least: float, most: float) -> bool:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and least <= value <= most  # not for NaN


def _shown(value: Any) -> str:
    """A value of the file, shortened and without control characters."""
    if isinstance(value, dict):
        return f"a table of {len(value)}"
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > 1 << 64:
        return f"an integer of {value.bit_length()} bits"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


_CHECKS: dict[str, _Check] = {
    "encoder": _text(),
    "output_stride": _whole(1, 4096),
    "low_stride": _whole(1, 4096),
    "levels": _several(4096, 1),
    "mean": _three(-1e6, 1e6),
    "std": _three(1e-6, 1e6),
    "classes": (f"a table of domains, each with its number of classes, 2 to {_MOST}", _counts),
    "context": _text(),
    "context_channels": _whole(1, _MOST),
    "context_rates": _several(4096, 1),
    "context_width": _whole(1, _MOST),
    "decoder": _text(),
    "last_relu": ("true or false", lambda value: isinstance(value, bool)),
    "norm": _text(),
}

"""Read files of tensors, and copy them into a network once all of them are known to fit."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt")  # files of tensors


def read_shapes(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """The shape of every tensor of a .safetensors file, and its text metadata, without reading the tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file, or of one that torch.save wrote. Raises ValueError for other files."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_stored(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # pickle, zip, torch and safetensors raise nearly every kind for a damaged file
        raise _unreadable(path, error) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(t, Tensor) for t in content.values()):
        raise ValueError(f"{path}: contains no named tensors; expected the state_dict of an encoder")
    if strange := [name for name, t in content.items() if isinstance(t, Tensor) and not isinstance(name, str)]:
        raise ValueError(
            f"{path}: its tensors are named {_short(strange[0])} ({type(strange[0]).__name__}), not by text; "
            "expected the state_dict of an encoder"
        )
    return {name.removeprefix("module."): t for name, t in content.items() if isinstance(t, Tensor)}


@torch.no_grad()
def fill(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, what: str) -> int:
    """Copy the tensors found into those of a network, all or none; returns their number.

    Raises ValueError unless names, shapes and kinds of numbers agree, and every number is finite. Floating point numbers of
    another precision are converted.
    """
    check_shapes(wanted, {name: list(tensor.shape) for name, tensor in found.items()}, path, what)
    faults = [fault for name, tensor in found.items() if (fault := _unlike(name, tensor, wanted[name]))]
    _check(faults, path, what)
    check_finite({name: tensor.to(wanted[name].dtype) for name, tensor in found.items()}, path)
    for name, tensor in found.items():
        wanted[name].copy_(tensor)
    return len(found)


def check_shapes(wanted: Mapping[str, Tensor], found: Mapping[str, list[int]], path: Path, what: str) -> None:
    """Raise ValueError unless the tensors found are those wanted, of the same shapes. Counters of batches may be missing."""
    faults = [f"{name} is missing" for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    faults += [f"{_short(name)} is unknown" for name in found if name not in wanted]
    faults += [
        f"{name} is {found[name]}, expected {list(t.shape)}"
        for name, t in wanted.items()
        if name in found and found[name] != list(t.shape)
    ]
    _check(faults, path, what)


def check_finite(tensors: Mapping[str, Tensor], place: object) -> None:
    """Raise ValueError if a tensor has NaN or infinity, or a variance is below 0: every prediction would be meaningless."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise ValueError(
                f"{place}: {count:,} of {tensor.numel():,} numbers of {name} are NaN or infinite, so all predictions would be "
                "meaningless; use an earlier checkpoint, or train again with a lower learning rate"
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ValueError(f"{place}: {name} has variances below 0; the file is damaged: use another copy of it")


def _unlike(name: str, tensor: Tensor, wanted: Tensor) -> str:
    """Why a tensor's numbers are not of the wanted kind; "" if they are."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return f"{name} is no plain tensor of numbers ({str(tensor.layout).removeprefix('torch.')}, {tensor.device})"
    if tensor.is_floating_point() == wanted.is_floating_point() and not tensor.is_complex():
        return ""
    if not wanted.is_floating_point() and tensor.is_floating_point() and bool((tensor == tensor.round()).all()):
        return ""  # an averaged model has counters in floating point
    kinds = [str(each.dtype).removeprefix("torch.") for each in (tensor, wanted)]
    return f"{name} is {kinds[0]}, expected {kinds[1]}"


def _check(faults: list[str], path: Path, what: str) -> None:
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ValueError(f"{path}: does not fit {what}: {'; '.join(faults[:4])}{more}")


def _check_stored(path: Path) -> None:
    """torch.save stores records as they are: a zip file that holds more than its own size is no model, but fills memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > path.stat().st_size:
        raise ValueError(f"{size:,} bytes are packed into {path.stat().st_size:,}, which torch.save never does")


def _unreadable(path: Path, error: Exception) -> ValueError:
    kind = "safetensors file" if path.suffix == ".safetensors" else "file of tensors that torch.load reads"
    return ValueError(f"{path}: not a {kind} ({_short(error) or type(error).__name__})")


def _short(value: Any) -> str:
    """Text of a file or an error on one line, without control characters."""
    text = " ".join(str(value).split())[:200]
    return "".join(letter if letter.isprintable() else "?" for letter in text)

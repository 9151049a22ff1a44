"""Create a segmenter from plain settings, save it, load it, or load only an encoder."""

import difflib
import json
import logging
import os
import pickle
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from semiseg.models.encoder import Encoder
from semiseg.models.segmenter import ContextKind, DecoderKind, Norm, Segmenter

FORMAT = "semiseg-segmenter/1"
SUFFIXES = (".safetensors", ".pth", ".pt")  # files of tensors
WEIGHTS, CONFIG = "model.safetensors", "config.json"

log = logging.getLogger(__name__)


def create_segmenter(
    *,
    encoder: str,
    classes: Mapping[str, int],
    output_stride: int = 8,
    weights: str | os.PathLike[str] = "timm",
    context: ContextKind = "psp",
    context_channels: int = 512,
    context_rates: Sequence[int] = (12, 24, 36),
    levels: Sequence[int] = (),
    context_width: int = 64,
    decoder: DecoderKind = "subpixel",
    low_stride: int | None = None,
    last_relu: bool = False,
    norm: Norm = "batch",
    checkpointing: bool = False,
) -> Segmenter:
    """A new segmenter, in training mode; random weights come from torch's global generator.

    encoder, low_stride, levels, checkpointing: see `Encoder`. weights: "timm" (the published ones; downloads), "none" (random),
    or anything that `load_encoder` accepts. The other settings are those of `Segmenter`.

    Raises ValueError for invalid settings, FileNotFoundError for missing weights, RuntimeError if the published weights
    cannot be fetched.
    """
    source = os.fspath(weights)
    body = Encoder(
        encoder,
        output_stride,
        pretrained=source == "timm",
        low_stride=low_stride,
        levels=levels,
        checkpointing=checkpointing,
    )
    model = Segmenter(
        body,
        classes,
        context=context,
        context_channels=context_channels,
        context_rates=context_rates,
        context_width=context_width,
        decoder=decoder,
        last_relu=last_relu,
        norm=norm,
    )
    if source not in ("timm", "none"):
        load_encoder(model, source)
    return model


def save_pretrained(
    model: Segmenter, folder: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write a folder with model.safetensors and config.json (the model's settings, and `metadata` under a separate key).

    A new folder is written completely or not at all; in an existing one, each file is replaced atomically.
    metadata: JSON values; None keeps the metadata the model was loaded with. Raises TypeError for other values.
    """
    folder = Path(folder)
    kept = model.metadata if metadata is None else dict(metadata)
    text = json.dumps({"format": FORMAT, "model": model.config, "metadata": kept}, indent=2) + "\n"
    # clones, since safetensors refuses tensors that share memory
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in model.state_dict().items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        fresh.mkdir()
        save_file(tensors, fresh / WEIGHTS, metadata={"format": "pt"})
        (fresh / CONFIG).write_text(text, encoding="utf-8")
        if folder.is_dir():
            for name in (WEIGHTS, CONFIG):
                (fresh / name).replace(folder / name)
        else:
            fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def from_pretrained(path: str | os.PathLike[str], *, norm: Norm | None = None) -> Segmenter:
    """The saved model, in evaluation mode, bit-identical.

    path: a folder that `save_pretrained` wrote, a run folder (its last step), or, if no such path exists, the id of a
    model on the Hugging Face hub. norm: the kind of batch norm for further training; by default as saved, except that
    "sync" becomes "batch", which evaluates the same and needs no GPU.

    Raises FileNotFoundError: no such path or id. ValueError: not a saved segmenter, or its files disagree.
    """
    folder = _model_folder(_locate(os.fspath(path)))
    settings, metadata = _read_config(folder / CONFIG)
    tensors = _read_tensors(folder / WEIGHTS)
    try:
        saved_norm = "batch" if settings["norm"] == "sync" else settings["norm"]
        with torch.random.fork_rng(devices=[]):  # do not change the caller's random numbers
            encoder = Encoder(
                settings["encoder"],
                settings["output_stride"],
                mean=settings["mean"],
                std=settings["std"],
                low_stride=settings.get("low_stride"),  # missing in older files, which have the default
                levels=settings.get("levels") or (),
            )
            parts = {key: settings[key] for key in ("classes", "context", "context_channels", "decoder", "last_relu")}
            if rates := settings.get("context_rates"):
                parts["context_rates"] = rates
            if width := settings.get("context_width"):
                parts["context_width"] = width
            model = Segmenter(encoder, **parts, norm=norm or saved_norm)
    except KeyError as error:
        raise ValueError(
            f"{folder / CONFIG}: model.{error.args[0]} is missing; was the file edited? Save the model again"
        ) from error
    _fill(model.state_dict(), tensors, folder / WEIGHTS, "this model")
    model.metadata = metadata
    return model.eval()


def load_encoder(model: Segmenter, path: str | os.PathLike[str]) -> int:
    """Load the weights at `path` into the model's encoder; returns the number of tensors loaded.

    path: a .safetensors or .pth file of the encoder's weights (timm's names; it may contain more, such as a classifier),
    or a folder or hub id of a saved segmenter or a run (the model of its last step), or the model.safetensors in such a
    folder: then its encoder, with the mean and standard deviation it was trained with; its classes do not matter.

    Raises FileNotFoundError: no such path or id. ValueError: another encoder, missing tensors or other shapes.
    """
    place = _locate(os.fspath(path))
    encoder = model.encoder
    moments = encoder.moments
    if place.name == WEIGHTS and _is_ours(place.parent):
        place = place.parent
    if place.is_dir():
        place = _model_folder(place)
        settings, _ = _read_config(place / CONFIG)
        saved_name = str(settings.get("encoder"))
        if saved_name.partition(".")[0] != encoder.name.partition(".")[0]:  # the rest is the name of weights
            raise ValueError(
                f"{place}: contains encoder {settings.get('encoder')!r}, the model has {encoder.name!r}; "
                "use weights of the model's encoder"
            )
        moments = (settings["mean"], settings["std"])
        place = place / WEIGHTS
    found = _read_tensors(place)
    prefix = "encoder.body."
    if any(name.startswith(prefix) for name in found):
        found = {name.removeprefix(prefix): t for name, t in found.items() if name.startswith(prefix)}
    wanted = encoder.body.state_dict()
    by_name = {_plain(name): t for name, t in found.items()}
    named = {name: by_name[_plain(name)] for name in wanted if _plain(name) in by_name}
    loaded = _fill(wanted, named, place, f"encoder {encoder.name!r}")
    encoder.normalise_by(*moments)
    log.info(
        "%s: %d tensors loaded into encoder %s, %d others ignored", place, loaded, encoder.name, len(found) - loaded
    )
    return loaded


def _locate(source: str) -> Path:
    """The path itself, or the local copy of the model on the hub with the id `source`."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) or path.parent.is_dir() or path.suffix in SUFFIXES:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        meant = (
            f"; did you mean {path.parent / near[0]}?" if near else ", and not a hub id, which has the form owner/name"
        )
        raise FileNotFoundError(f"{source}: no such file or folder{meant}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=[WEIGHTS, CONFIG]))
    except Exception as error:  # requests, httpx and huggingface_hub raise different kinds
        raise FileNotFoundError(
            f"{source}: no such folder here, and no such model could be fetched from the hub "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); check the path, the id and the network"
        ) from error


def _model_folder(path: Path) -> Path:
    """The folder that contains the model: this one, or a run's last step."""
    steps = sorted(step.parent for step in path.glob(f"step-*/{WEIGHTS}"))
    for folder in (path, *reversed(steps)):
        if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
            return folder
    if path.is_file():
        raise ValueError(f"{path}: a file; expected the folder of a saved model, with {WEIGHTS} and {CONFIG}")
    missing = [name for name in (WEIGHTS, CONFIG) if not (path / name).is_file()]
    raise FileNotFoundError(f"{path}: no {' and no '.join(missing)}, and no step-*/ with both; is it a saved model?")


def _is_ours(folder: Path) -> bool:
    """Whether `save_pretrained` wrote this folder; other libraries' models also have a config.json."""
    try:
        _read_config(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return True


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT or not isinstance(content.get("model"), dict):
        raise ValueError(f"{path}: format is {found!r}, expected {FORMAT!r}; it was not written by save_pretrained")
    return content["model"], content.get("metadata", {})


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file, or of one that torch.save wrote."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        kind = "safetensors file" if path.suffix == ".safetensors" else "file of tensors that torch.load reads"
        raise ValueError(f"{path}: not a {kind} ({' '.join(str(error).split())[:200]})") from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(t, Tensor) for t in content.values()):
        raise ValueError(f"{path}: contains no named tensors; expected the state_dict of an encoder")
    return {name.removeprefix("module."): t for name, t in content.items() if isinstance(t, Tensor)}


def _plain(name: str) -> str:
    """A name for comparison: timm's feature networks write stages_0 for stages.0, or put `model.` before all names."""
    return name.removeprefix("model.").replace(".", "_")


@torch.no_grad()
def _fill(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path, what: str) -> int:
    """Copy the tensors found, after checking that all of them fit; returns their number."""
    faults = [f"{name} is missing" for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    faults += [f"{name} is unknown" for name in found if name not in wanted]
    faults += [
        f"{name} is {list(found[name].shape)}, expected {list(t.shape)}"
        for name, t in wanted.items()
        if name in found and found[name].shape != t.shape
    ]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ValueError(f"{path}: does not fit {what}: {'; '.join(faults[:4])}{more}")
    for name, tensor in found.items():
        wanted[name].copy_(tensor)
    return len(found)

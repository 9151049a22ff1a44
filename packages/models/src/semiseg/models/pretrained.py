"""Create a segmenter from plain settings, save it, load it, or load only an encoder."""

import difflib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from semiseg.models.config import FORMAT, read_config
from semiseg.models.encoder import Encoder
from semiseg.models.segmenter import ContextKind, DecoderKind, Norm, Segmenter
from semiseg.models.tensors import SUFFIXES, check_shapes, fill, read_shapes, read_tensors

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SETTINGS = "semiseg"  # in the metadata of the weights: the settings they were saved with

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
        save_file(tensors, fresh / WEIGHTS, metadata={"format": "pt", SETTINGS: json.dumps(model.config)})
        _order_metadata(fresh / WEIGHTS)
        (fresh / CONFIG).write_text(text, encoding="utf-8")
        if folder.is_dir():
            for name in (WEIGHTS, CONFIG):
                (fresh / name).replace(folder / name)
        else:
            fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _order_metadata(path: Path) -> None:
    """Sort the metadata of a .safetensors file, whose writer takes a random order: equal models are equal bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def from_pretrained(path: str | os.PathLike[str], *, norm: Norm | None = None) -> Segmenter:
    """The saved model, in evaluation mode, bit-identical.

    path: a folder that `save_pretrained` wrote, a run folder (its last step), or, if no such path exists, the id of a
    model on the Hugging Face hub. norm: the kind of batch norm for further training; by default as saved, except that
    "sync" becomes "batch", which evaluates the same and needs no GPU.

    Raises FileNotFoundError: no such path or id. ValueError: not a saved segmenter, its files disagree, or its weights are
    not finite. Nothing is allocated before shapes in config.json and model.safetensors agree.
    """
    folder = _model_folder(_locate(os.fspath(path)))
    settings, metadata = read_config(folder / CONFIG)
    shapes, saved = read_shapes(folder / WEIGHTS)
    saved_norm = "batch" if settings["norm"] == "sync" else settings["norm"]
    _check_domains(settings["classes"], shapes, folder)
    with torch.random.fork_rng(devices=[]):  # do not change the caller's random numbers
        try:
            with torch.device("meta"):  # shapes only
                sketch = _build(settings, saved_norm).state_dict()
        except Exception:  # a few networks of timm cannot be built without memory; the same error, if any, comes below
            sketch = None
        if sketch is not None:
            check_shapes(sketch, shapes, folder / WEIGHTS, f"the model of {CONFIG}")
        try:
            model = _build(settings, norm or saved_norm)
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG}: {error}") from error
    _check_unedited(model.config, saved, folder)
    fill(model.state_dict(), read_tensors(folder / WEIGHTS), folder / WEIGHTS, f"the model of {CONFIG}")
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
        settings, _ = read_config(place / CONFIG)
        saved_name = settings["encoder"]
        if saved_name.partition(".")[0] != encoder.name.partition(".")[0]:  # the rest is the name of weights
            raise ValueError(
                f"{place}: contains encoder {saved_name!r}, the model has {encoder.name!r}; "
                "use weights of the model's encoder"
            )
        _check_unedited(settings, read_shapes(place / WEIGHTS)[1], place)
        moments = (settings["mean"], settings["std"])
        place = place / WEIGHTS
    found = read_tensors(place)
    prefix = "encoder.body."
    if any(name.startswith(prefix) for name in found):
        found = {name.removeprefix(prefix): t for name, t in found.items() if name.startswith(prefix)}
    wanted = encoder.body.state_dict()
    by_name = {_plain(name): t for name, t in found.items()}
    named = {name: by_name[_plain(name)] for name in wanted if _plain(name) in by_name}
    loaded = fill(wanted, named, place, f"encoder {encoder.name!r}")
    encoder.normalise_by(*moments)
    log.info(
        "%s: %d tensors loaded into encoder %s, %d others ignored", place, loaded, encoder.name, len(found) - loaded
    )
    return loaded


def _locate(source: str) -> Path:
    """The path itself, or the local copy of the model on the hub with the id `source`."""
    named = source if source.isprintable() and len(source) <= 400 else f"{source[:100]!a}"
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long, ~nobody, a NUL
        raise FileNotFoundError(f"{named}: not a path ({getattr(error, 'strerror', None) or error})") from error
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source) or path.parent.is_dir() or path.suffix in SUFFIXES:
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        meant = (
            f"; did you mean {path.parent / near[0]}?" if near else ", and not a hub id, which has the form owner/name"
        )
        raise FileNotFoundError(f"{named}: no such file or folder{meant}")
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
    found = ((re.fullmatch(r"step-(\d+)", step.parent.name), step.parent) for step in path.glob(f"step-*/{WEIGHTS}"))
    steps = sorted(
        ((int(name[1]), step) for name, step in found if name), reverse=True
    )  # not of copies, as step-backup
    for folder in (path, *(step for _, step in steps)):
        if (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file():
            return folder
    if path.is_file():
        raise ValueError(f"{path}: a file; expected the folder of a saved model, with {WEIGHTS} and {CONFIG}")
    missing = [name for name in (WEIGHTS, CONFIG) if not (path / name).is_file()]
    raise FileNotFoundError(f"{path}: no {' and no '.join(missing)}, and no step-*/ with both; is it a saved model?")


def _is_ours(folder: Path) -> bool:
    """Whether `save_pretrained` wrote this folder; other libraries' models also have a config.json."""
    try:
        read_config(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return True


def _build(settings: Mapping[str, Any], norm: Any) -> Segmenter:
    """The network that config.json describes, with random weights, on the default device."""
    encoder = Encoder(
        settings["encoder"],
        settings["output_stride"],
        mean=settings["mean"],
        std=settings["std"],
        low_stride=settings.get("low_stride"),
        levels=settings.get("levels") or (),
    )
    parts = {key: settings[key] for key in ("classes", "context", "context_channels", "decoder", "last_relu")}
    if rates := settings.get("context_rates"):
        parts["context_rates"] = rates
    if width := settings.get("context_width"):
        parts["context_width"] = width
    return Segmenter(encoder, **parts, norm=norm)


def _check_domains(classes: Mapping[str, int], shapes: Mapping[str, Any], folder: Path) -> None:
    found = {name.split(".")[1] for name in shapes if name.startswith("decoders.") and name.count(".") > 1}
    if found != classes.keys():
        told, kept = (", ".join(sorted(names)[:4])[:200] or "none" for names in (classes, found))
        raise ValueError(
            f"{folder / CONFIG}: model.classes has the domains {told}, but {WEIGHTS} has decoders of {kept}; "
            "the files are not of one model: save it again"
        )


def _check_unedited(config: Mapping[str, Any], saved: Mapping[str, str], folder: Path) -> None:
    """Settings that change no shape, such as a stride or a mean, change every prediction: the weights keep a copy of them."""
    try:
        copy = json.loads(saved.get(SETTINGS, "{}"))
        kept = [name for name in copy if name in config and name not in ("encoder", "norm")]  # shapes tell the encoder
        differing = [name for name in kept if config[name] != copy[name]]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / WEIGHTS}: its copy of {CONFIG} is damaged; save the model again") from error
    if differing:
        name = differing[0]
        raise ValueError(
            f"{folder / CONFIG}: model.{name} is {str(config[name])[:100]}, but the weights were saved with "
            f"{str(copy[name])[:100]}; restore that, or save the model again"
        )


def _plain(name: str) -> str:
    """A name for comparison: timm's feature networks write stages_0 for stages.0, or put `model.` before all names."""
    return name.removeprefix("model.").replace(".", "_")

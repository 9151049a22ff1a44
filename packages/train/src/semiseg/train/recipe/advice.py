"""What to write instead of the options and keys of other programs: `--steps 100`, `epochs=10`, `lr=0.1`."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from semiseg.data import DataError, ShardSet
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.document import read
from semiseg.train.recipe.problems import RecipeError, nearest, shortened
from semiseg.train.recipe.shipped import find

DEVICE = (
    "a GPU is used if there is one; for several: accelerate launch --num_processes N -m semiseg.train RECIPE; "
    "for the CPU: put CUDA_VISIBLE_DEVICES= before the command"
)
RESUME = "to resume a run, rerun the command that started it, without further options"
STEPS, NAMES = "steps={value}", "name={value}"
BATCH = "data.domains.{domain}.labeled.batch_size={value}, and so for each other source"
OUTPUT = "runs={value}; a run's folder is <runs>/<name>"
SHARDS = "data.shards={value} if it contains shards; to write shards of images: semiseg data shard folder {value} --to shards/"
KEYS = {  # as other programs call it -> what to write here
    **dict.fromkeys(("iters", "iterations", "max_iters", "max_steps", "num_steps", "max_iterations"), STEPS),
    **dict.fromkeys(("batch", "batch_size", "bs", "train_batch_size", "per_device_train_batch_size"), BATCH),
    **dict.fromkeys(("lr", "learning_rate", "base_lr"), "optimizer.lr={value}"),
    **dict.fromkeys(("wd", "weight_decay"), "optimizer.weight_decay={value}"),
    **dict.fromkeys(("optim", "optimizer"), "optimizer.kind={value}"),
    **dict.fromkeys(("scheduler", "schedule", "lr_scheduler"), "schedule.kind={value}"),
    **dict.fromkeys(("model", "arch", "backbone", "encoder", "network", "net"), "model.encoder.name={value}"),
    **dict.fromkeys(("pretrained", "weights"), "model.encoder.weights=FILE, or timm for the published ones"),
    **dict.fromkeys(("ckpt", "checkpoint", "load", "init", "finetune"), "model.start=RUN"),
    **dict.fromkeys(("workers", "num_workers", "j"), "data.workers={value}"),
    **dict.fromkeys(("crop", "crop_size"), "data.domains.{domain}.augment.crop=[{value}, {value}]"),
    **dict.fromkeys(
        ("imgsz", "img_size", "image_size", "resize"), "data.domains.{domain}.augment.resize=[{value}, {value}]"
    ),
    **dict.fromkeys(("fp16", "half"), "precision=fp16"),
    **dict.fromkeys(("amp", "bf16", "mixed_precision"), "precision=bf16"),
    **dict.fromkeys(("out", "output", "output_dir", "out_dir", "save_dir", "logdir", "log_dir", "work_dir"), OUTPUT),
    **dict.fromkeys(("data", "data_dir", "dataset", "root", "data_path", "data_root"), SHARDS),
    **dict.fromkeys(("exp", "exp_name", "run_name", "experiment"), NAMES),
    **dict.fromkeys(("labels", "num_labels", "labeled"), "data.domains.{domain}.labeled.subset.count={value}"),
}
SENTENCES = {
    **dict.fromkeys(("device", "devices", "gpu", "gpus", "gpu_id", "num_gpus", "cuda", "cpu", "no_cuda"), DEVICE),
    **dict.fromkeys(("resume", "resume_from", "resume_from_checkpoint", "continue"), RESUME),
    **dict.fromkeys(("num_classes", "classes", "nc"), "classes come from the taxonomy of the shards"),
    **dict.fromkeys(
        ("config", "cfg", "recipe", "f", "c"), "write the recipe first, without an option: semiseg train RECIPE"
    ),
    **dict.fromkeys(("local_rank", "nproc_per_node", "num_processes", "multi_gpu"), DEVICE),
}
EPOCHS = ("epochs", "epoch", "max_epochs", "num_epochs", "num_train_epochs", "n_epochs")
UNITS = frozenset({"steps", "seed", "name", "precision", "compile", "accumulate", "deterministic", "clip", "timeout"})


def option_faults(arguments: Sequence[str], known: Sequence[str], raw: Mapping[str, Any]) -> list[str]:
    """A line for each argument that looks like an option, none of which is in `known`: what to write instead."""
    faults, rest = list[str](), list(arguments)
    for place, argument in enumerate(rest):
        if not re.match(r"--?[A-Za-z]", argument):
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        after = rest[place + 1] if place + 1 < len(rest) else ""
        if not equals and after and "=" not in after and not re.match(r"--?[A-Za-z]", after):
            value = after
        told = f"{argument} {value}" if value and not equals else argument
        close = None if _instead(name, value, raw) else nearest(argument.partition("=")[0], known)
        advice = f"did you mean '{close}'?" if close else _instead(name, value, raw)
        advice = advice or f"options: {', '.join(known)}; settings are written as key=value, as in steps=100"
        faults.append(f"unknown option '{shortened(told, 80)}'; {advice}")
    return faults


def check_options(recipe: str, arguments: Sequence[str], known: Sequence[str]) -> None:
    """Raise RecipeError for arguments that look like options, none of which is in `known`."""
    if not any(argument.startswith("-") for argument in (recipe, *arguments)):
        return
    raw: Mapping[str, Any] = {}
    with suppress(RecipeError):
        raw, _ = read(find(recipe))
    if faults := option_faults((recipe, *arguments), known, raw):
        raise RecipeError(faults)


def key_advice(key: str, value: Any, raw: Mapping[str, Any]) -> str:
    """What to write instead of a key that recipes lack, or that holds a table; "" if nothing is known of it."""
    return _instead(key, "" if isinstance(value, dict | list) else str(value), raw)


def _instead(name: str, value: str, raw: Mapping[str, Any]) -> str:
    plain, text = name.lower().replace("-", "_"), shlex.quote(value) if value else ""
    domains = raw.get("data", {}).get("domains", {}) if isinstance(raw.get("data"), dict) else {}
    domain = next(iter(domains), "NAME") if isinstance(domains, dict) else "NAME"
    if plain in EPOCHS:
        return _epochs(value, raw) or "a recipe counts steps (batches), not epochs: write steps=N"
    if plain in SENTENCES:
        return SENTENCES[plain]
    if plain in KEYS:
        return f"write {KEYS[plain].format(value=text or 'VALUE', domain=domain)}"
    if plain in UNITS & {field.name for field in fields(Recipe)}:
        return f"write {plain}={text or 'VALUE'}"
    if matches := [key for key in _keys(raw) if key.endswith(f".{plain}")]:
        return f"write {matches[0]}={text or 'VALUE'}" + f" (or {', '.join(matches[1:3])})" * (len(matches) > 1)
    return ""


def _epochs(value: str, raw: Mapping[str, Any]) -> str:
    """The number of steps of so many epochs of the first domain's labeled images; "" if that is unknown."""
    try:
        epochs, data = float(value), raw["data"]
        labeled = next(iter(data["domains"].values()))["labeled"]
        batch, split = labeled["batch_size"], labeled["split"]
        splits = [split] if isinstance(split, str) else split
        images = (labeled.get("subset") or {}).get("count") or sum(
            len(ShardSet(f"{data.get('shards', 'shards/').rstrip('/')}/{labeled['dataset']}/{one}")) for one in splits
        )
        steps = max(1, round(epochs * images / batch))
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        StopIteration,
        ZeroDivisionError,
        OverflowError,
        DataError,
    ):
        return ""
    what = f"{epochs:g} epochs of the {images} labeled images in batches of {batch}"
    return f"a recipe counts steps (batches), not epochs: write steps={steps} for {what}"


def _keys(raw: Any, key: str = "") -> Iterator[str]:
    """Dotted keys of all values in a recipe."""
    if isinstance(raw, Mapping):
        for name, inner in raw.items():
            yield from _keys(inner, f"{key}.{name}" if key else str(name))
    elif key:
        yield key

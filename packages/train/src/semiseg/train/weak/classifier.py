"""Weak labels, stage 1: an encoder with an image classifier, fitted to image-level tags (CCT section 3.3)."""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from semiseg.data import Plan, SemisegError, ShardSet, Taxonomy, atomic, image_classes, key64
from semiseg.models.encoder import Encoder
from semiseg.models.tensors import check_finite
from semiseg.train.console import Console
from semiseg.train.recipe.shards import label_conflict
from semiseg.train.step.augment import Augmentation
from semiseg.train.step.batches import StepData, Stream, steps_from
from semiseg.train.step.ranks import reduced, share_buffers
from semiseg.train.weak.stored import check_stored

FILE = "classifier.pt"
BACKGROUND = "background"  # name of the class of pixels without an object; no tag names it


class WeakError(SemisegError):
    """A classifier that cannot be fitted or read."""


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """All settings that determine a classifier, besides its images; stored in its file.

    masks: simulate tags from dense labels: a class is tagged if it covers more than the fraction `least` of the image;
    otherwise tags are the publisher's. stride: of the encoder's features. weights: "timm" are pretrained, with batch norm
    statistics frozen, as in the released code; "none" are random. batch_size is global. lr: of the encoder; the linear
    layer's is ten times that. crop: side in pixels.
    """

    masks: bool = False
    least: float = 0.01
    encoder: str = "resnet50s"
    weights: Literal["timm", "none"] = "timm"
    stride: int = 16
    steps: int = 3000
    batch_size: int = 16
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    crop: int = 448
    scale: tuple[float, float] = (0.75, 1.5)
    seed: int = 0


class Classifier(nn.Module):
    """Encoder, global average pooling, linear layer without bias: the mean of a class's activation map is its logit."""

    def __init__(self, encoder: Encoder, classes: int, *, frozen_norm: bool) -> None:
        super().__init__()
        self.encoder, self.frozen_norm = encoder, frozen_norm
        self.head = nn.Linear(encoder.channels, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [b, C] of images in the format of `Encoder`."""
        return self.head(self.encoder(images).deep.mean((2, 3)))

    def train(self, mode: bool = True) -> "Classifier":
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """The images of a split and the classes of their tags.

    classes: ids in the taxonomy; background: its id, or None; present: bool [n, len(classes)]; rows: the images to use,
    which are those with known tags.
    """

    classes: list[int]
    background: int | None
    present: np.ndarray
    rows: np.ndarray


def tagged(shards: ShardSet, taxonomy: Taxonomy, *, masks: bool, least: float) -> Tagged:
    """Read tags, or simulate them from dense labels. Images without any tag are left out: their content is unknown."""
    if masks and (conflict := label_conflict(taxonomy, shards)):
        raise WeakError(f"{shards.url}: {conflict}; choose one with --taxonomy")
    background = taxonomy.names.index(BACKGROUND) if BACKGROUND in taxonomy.names else None
    classes = [number for number in range(len(taxonomy.names)) if number != background]
    present = image_classes(shards, taxonomy, masks=masks, least=least)[:, classes]
    rows = np.arange(len(shards)) if masks else np.flatnonzero(present.any(1))
    return Tagged(classes=classes, background=background, present=present, rows=rows)


def fit(
    shards: ShardSet,
    taxonomy: Taxonomy,
    to: Path,
    fitting: Fitting,
    *,
    workers: int = 2,
    save_every: int = 200,
    quiet: bool = False,
) -> Path:
    """Fit a classifier to the tags of a split and return its file; every rank calls this.

    Binary cross entropy of each class, mean over classes and the global batch; SGD, polynomial decay (power 0.9); float32.
    The same call resumes from the last save and ends with the same weights as an uninterrupted one (bit for bit on CPUs).
    Raises SemisegError for tags that name no class, an unknown encoder, and a file of other settings or images.
    """
    AcceleratorState._reset_state()  # an earlier run in this process may have set another precision
    accelerator = Accelerator(mixed_precision="no")
    rank, world = accelerator.process_index, accelerator.num_processes
    if world > fitting.batch_size:
        raise SemisegError(
            f"{world} processes cannot share {fitting.batch_size} images a step; raise --batch-size to {world} or more"
        )
    console = Console(quiet=quiet or not accelerator.is_main_process)
    source = tagged(shards, taxonomy, masks=fitting.masks, least=fitting.least)
    settings = {**_plain(asdict(fitting)), "digest": shards.digest, "taxonomy": taxonomy.name}
    settings["classes"] = [taxonomy.names[number] for number in source.classes]
    file = to / FILE
    saved = read(file) if file.exists() else None
    torch.manual_seed(key64(fitting.seed, "initialisation"))
    model = build(settings, pretrained=fitting.weights == "timm" and saved is None)
    groups = [
        {"params": model.encoder.parameters(), "lr": fitting.lr},
        {"params": model.head.parameters(), "lr": 10 * fitting.lr},
    ]
    optimizer = torch.optim.SGD(groups, momentum=fitting.momentum, weight_decay=fitting.weight_decay)
    start = 0
    if saved is not None:
        _check_same(file, saved["settings"], settings)
        model.load_state_dict(saved["model"])
        model.to(accelerator.device)
        optimizer.load_state_dict(saved["optimizer"])
        start = int(saved["step"])
        console.say(f"resuming {file} from step {start}" if start < fitting.steps else f"{file} is already complete")

    fill = [round(255 * float(mean)) for mean in model.encoder.mean.flatten()]
    crop, plan = (fitting.crop, fitting.crop), Plan(shards, key64(fitting.seed, "order", "weak"), subset=source.rows)
    augmentation = Augmentation(scale=fitting.scale, crop=crop, flip=0.5, fill=(fill[0], fill[1], fill[2]))
    stream = Stream(
        name="weak",
        shards=shards,
        plan=plan,
        batch_size=fitting.batch_size,
        augmentation=augmentation,
        taxonomy=None,
        seed=fitting.seed,
    )
    data = StepData({"weak": {"images": stream}}, rank=rank, world=world)
    batches = steps_from(data, start, fitting.steps, workers=workers, pin=accelerator.device.type == "cuda")
    present = torch.from_numpy(source.present).float()
    learner, optimizer = accelerator.prepare(model, optimizer)
    learner.train()
    with console.training(start, fitting.steps):
        for step, batch in zip(range(start, fitting.steps), batches, strict=True):
            samples = batch["weak"]["images"].to(accelerator.device)
            rows = [plan.draws(position, position + 1)[0].sample for position in samples.positions]
            for group, lr in zip(optimizer.param_groups, (fitting.lr, 10 * fitting.lr), strict=True):
                group["lr"] = lr * (1 - step / fitting.steps) ** 0.9
            torch.manual_seed(key64(fitting.seed, "forward", step, rank))  # for dropout inside an encoder
            targets = present[rows].to(accelerator.device)
            losses = F.binary_cross_entropy_with_logits(learner(samples.images), targets, reduction="none").mean(1)
            loss = (losses * samples.weights).sum()  # weights already contain world / batch
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done = step + 1
            console.stepped(done)
            if done % save_every == 0 or done == fitting.steps or done == 1:
                means = reduced({"loss": loss.detach()}, world)
                if not np.isfinite(means["loss"]):
                    raise WeakError(
                        f"{file}: the loss is {means['loss']} at step {done}; lower --lr and choose another folder (--to)"
                    )
                console.losses(done, means, {"loss"})
                share_buffers(model, world)
                if accelerator.is_main_process:
                    _save(file, {"settings": settings, "step": done, **_states(model, optimizer)})
                accelerator.wait_for_everyone()
    return file


def build(settings: Mapping[str, Any], *, pretrained: bool) -> Classifier:
    """The network described by the settings of a file, with random weights or the encoder's published ones."""
    try:
        encoder = Encoder(settings["encoder"], settings["stride"], pretrained=pretrained)
    except (ValueError, RuntimeError) as error:  # semiseg.models does not know SemisegError
        raise WeakError(f"{error}; or start from random weights with --weights none") from error
    return Classifier(encoder, len(settings["classes"]), frozen_norm=settings["weights"] == "timm")


def read(file: Path) -> dict[str, Any]:
    """A classifier's file: settings, step, model, optimizer. WeakError if it is missing, damaged or not finite."""
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeakError(f"no classifier at {file}; create one with `semiseg weak fit`") from error
    except Exception as error:  # pickle, zip and torch raise different exceptions
        raise WeakError(f"{file} cannot be read ({error}); delete it and fit again") from error
    if not isinstance(saved, dict) or not {"settings", "step", "model", "optimizer"} <= saved.keys():
        raise WeakError(f"{file} is not a classifier that `semiseg weak fit` wrote; delete it and fit again")
    try:
        check_stored(saved)
    except ValueError as error:
        raise WeakError(f"{file} is damaged ({error}); delete it and fit again") from error
    try:
        check_finite(saved["model"], file)
    except ValueError as error:
        raise WeakError(f"{error} (semiseg weak fit --lr ...)") from error
    return saved


def _save(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic(file) as stream:
        stream.write(buffer.getvalue())


def _states(model: Classifier, optimizer: Any) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def _check_same(file: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differing = [name for name in now if saved.get(name) != now[name]]
    if differing:
        lines = "\n".join(f"  {name}: {saved.get(name)} in the file, {now[name]} now" for name in differing)
        raise WeakError(
            f"{file} was fitted with other settings:\n{lines}\nrestore them, or choose another folder (--to)"
        )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as a file returns them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

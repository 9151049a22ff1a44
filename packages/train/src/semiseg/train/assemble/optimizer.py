"""Recipe to optimizer and learning rate."""

from collections.abc import Callable, Sequence
from math import cos, pi

import torch
from torch import nn

from semiseg import methods
from semiseg.train import recipe as r
from semiseg.train.step.learner import Learner


def build_optimizer(recipe: r.Recipe, learner: Learner) -> torch.optim.Optimizer:
    """One optimizer; every group keeps its own base rate in "base_lr", which `learning_rate` scales."""
    settings = recipe.optimizer
    encoder = list(learner.model.encoder.parameters())
    inside = {id(parameter) for parameter in encoder}
    others = [parameter for parameter in learner.model.parameters() if id(parameter) not in inside]
    groups = [(encoder, settings.lr * settings.encoder_lr_scale), (others, settings.lr)]
    for objectives in learner.objectives.values():
        assert isinstance(objectives, nn.ModuleList)
        for objective in objectives:
            assert isinstance(objective, methods.Objective)
            groups.append((list(objective.parameters()), settings.lr * objective.lr_scale))
    trained = [([parameter for parameter in group if parameter.requires_grad], rate) for group, rate in groups]
    described = [{"params": group, "lr": rate, "base_lr": rate} for group, rate in trained if group]
    match settings:
        case r.SGD():
            return torch.optim.SGD(
                described,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
                nesterov=settings.nesterov,
                # torch's fused SGD fails on a group of which only some have momentum yet, as idle domains leave it
                fused=recipe.data.domains_per_step == "all",
            )
        case r.AdamW():
            return torch.optim.AdamW(described, betas=settings.betas, weight_decay=settings.weight_decay, fused=True)


def learning_rate(schedule: r.Schedule, steps: int) -> Callable[[int], float]:
    """Factor of the base rate at a step: a pure function, so that it needs no state in a checkpoint."""

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (schedule.warmup + 1))
        match schedule:
            case r.Poly():
                return rise * (1 - step / steps) ** schedule.power
            case r.Cosine():
                return rise * (1 + cos(pi * step / steps)) / 2
            case r.Constant():
                return rise

    return factor


def set_learning_rate(groups: Sequence[dict], factor: float) -> None:
    for group in groups:
        group["lr"] = group["base_lr"] * factor

"""Gradient checkpointing: a block keeps only its input and is recomputed in the backward pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(network: nn.Module) -> int:
    """Checkpoint all blocks of `network` when gradients are enabled; returns the number of blocks.

    A block is the outermost member of an `nn.Sequential` that has at least two layers with parameters and is not an
    `nn.Sequential` itself: a residual block of a ResNet, an inverted one of an EfficientNet, a transformer's layer.
    Losses, gradients, running statistics and parameter names do not change: the second pass uses the first one's random
    numbers and precision, and batch norm does not track it. Works under DDP, not under `torch.compile`.
    """
    found = list(_blocks(network))
    for block in found:
        block.forward = partial(_forward, block)
    return len(found)


def keep_activations(network: nn.Module) -> None:
    """Undo `checkpoint_blocks`."""
    for block in _blocks(network):
        block.__dict__.pop("forward", None)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    for child in network.children():
        layers = sum(1 for module in child.modules() if any(True for _ in module.parameters(recurse=False)))
        if isinstance(network, nn.Sequential) and not isinstance(child, nn.Sequential) and layers > 1:
            yield child
        else:
            yield from _blocks(child)


def _forward(block: nn.Module, *inputs: Any, **named: Any) -> Any:
    run = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return run(*inputs, **named)
    return checkpoint(run, *inputs, use_reentrant=False, context_fn=partial(_passes, block), **named)


def _passes(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the first and of the second pass."""
    return nullcontext(), _untracked(block)


@contextmanager
def _untracked(block: nn.Module) -> Iterator[None]:
    """Let batch norm track a copy of its statistics.

    Tracking cannot be disabled: autograd would save other tensors in the second pass than in the first, which
    checkpointing treats as an error.
    """
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)

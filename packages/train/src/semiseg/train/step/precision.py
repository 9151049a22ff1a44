"""What makes a step fast here: the precision that `precision = "auto"` comes to, the layout of weights, a compiled encoder."""

import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import parse_flag_from_env
from torch import nn

from semiseg.data import SemisegError
from semiseg.models import Segmenter

Precision = Literal["no", "fp16", "bf16"]


class PrecisionError(SemisegError):
    """A precision, or a compiler, that this machine does not have."""


def choose(asked: str, encoder: nn.Module, *, kept: str | None = None, device: torch.device | None = None) -> Precision:
    """The precision of a run: what its recipe asks for; under "auto" bf16 where that is faster. All ranks call this.

    kept: what the run was trained in before; "auto" keeps it on any machine. device: by default a GPU if there is one.

    The choice follows from the processor and the encoder alone, never from a clock, so that a seed means the same losses
    again: bf16 on GPUs that have it, and on CPUs with AMX tiles for encoders without depthwise convolutions. Measured with
    forward and backward on one core: resnet50 in bf16 2.7 times as fast as in float32, tf_efficientnet_lite0 0.8 times;
    with AVX512-BF16 and no AMX resnet10t 0.7 times. Ranks on unequal machines agree on "no".

    Raises PrecisionError where this machine lacks the precision.
    """
    cuda = torch.cuda.is_available() if device is None else device.type == "cuda"
    chosen = asked if asked != "auto" else kept or _agreed("bf16" if _gains_by_bf16(encoder, cuda) else "no")
    if chosen == "fp16" and not cuda:
        raise PrecisionError('precision = "fp16" needs a GPU, and there is none here; set precision=bf16, no or auto')
    if chosen == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        why = "this run was trained in bf16" if asked == "auto" else 'precision = "bf16"'
        raise PrecisionError(
            f"{why}, which {torch.cuda.get_device_name()} does not have; use a machine that has it, or set precision=no "
            "in a run of another name"
        )
    return chosen  # type: ignore[return-value]  # the recipe's own choices


def arrange(model: nn.Module, precision: str) -> None:
    """Give the weights of convolutions the memory layout that is faster, in place; values stay.

    Channels last: half precision, which runs on tensor cores and AMX tiles in that layout (resnet50 in bf16 on a CPU: 1.5
    times as fast), and depthwise convolutions (tf_efficientnet_lite0 in float32: 1.2 times); resnet50 in float32 loses 6 %.
    """
    if precision != "no" or _has_depthwise(model):
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # an overload it misses


def compile_encoder(encoder: nn.Module, *, domains: int = 1) -> None:
    """Have the encoder's calls in training compiled, in place: names of parameters stay.

    Every size of batch and image is compiled for itself, as one graph for all sizes takes longer than any training where a
    network pads by its input's size: more than 12 minutes in tf_efficientnet_lite0. A domain's crops have one size, and its
    labeled, unlabeled, weak and mixed batches few; micro-steps may have two each. From 8 kinds of batches a domain on torch
    says so in a warning, and runs further ones uncompiled.

    Raises PrecisionError where there is no compiler.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # torch has several kinds for a missing or a strange compiler
        raise PrecisionError(
            f"compile = true needs a C++ compiler ({' '.join(str(error).split())[:120]}); install one, such as g++, name "
            "it by the environment variable CXX, or set compile=false"
        ) from error
    import torch._dynamo

    # names the default as it is: an objective that did so between two steps would have everything compiled again
    torch.set_float32_matmul_precision(torch.get_float32_matmul_precision())
    torch._dynamo.config.cache_size_limit = 8 * domains  # the name that torch 2.6 has too
    encoder.compile(dynamic=False)


def uncompiled(encoder: nn.Module) -> AbstractContextManager[Any]:
    """Within this, what was compiled runs as plain code: in evaluation, where each size of image comes a few times."""
    if encoder._compiled_call_impl is None:  # asking torch's compiler for it would take a second to load
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _gains_by_bf16(encoder: nn.Module, cuda: bool) -> bool:
    if cuda:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() and not _has_depthwise(encoder)


def _has_depthwise(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1 for part in module.modules())


def _agreed(mine: Precision) -> Precision:
    """What every rank says, or "no" where they differ. All ranks call this."""
    if not dist.is_initialized():
        return mine
    all_say: list[Precision] = [mine] * dist.get_world_size()
    dist.all_gather_object(all_say, mine)
    return mine if len(set(all_say)) == 1 else "no"


def build_accelerator(
    model: Segmenter,
    *,
    precision: str = "auto",
    deterministic: bool = False,
    kept: str | None = None,
    timeout: float | None = None,
) -> Accelerator:
    """accelerate with the precision of a run, and without what it does to loaders, losses or schedules. All ranks call this.

    Lays out the model's weights as that precision wants them. kept: the precision of the run so far, which "auto" keeps.
    timeout: seconds that a rank waits for another one; by default torch's, 10 to 30 minutes.
    """
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    # True also where no domain is idle: DDP then keeps its buckets, which it would otherwise rebuild after a process's
    # first step, so that a continued run of 3 processes or more would add gradients up in another order for one step
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    AcceleratorState._reset_state()  # or a second run of this process could have no other precision than the first
    limit = {} if timeout is None else {"timeout": timedelta(seconds=timeout)}
    state = PartialState(
        cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), **limit
    )  # the process group, over which ranks agree
    chosen = choose(precision, model.encoder, kept=kept, device=state.device)
    arrange(model, chosen)
    accelerator = Accelerator(mixed_precision=chosen, kwargs_handlers=[ddp])
    accelerator.gradient_accumulation_steps = 1  # a launcher's setting would divide the loss again
    return accelerator

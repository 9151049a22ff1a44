"""Batch normalisation by the statistics of all processes: torch's own on GPUs, a plain one that also runs on CPUs."""

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


def synchronised(module: nn.Module) -> nn.Module:
    """`module` with every BatchNorm2d normalising by the batch of all processes; parameters and names do not change.

    On a machine with GPUs these are torch's SyncBatchNorm (through timm's converter, which, unlike torch's, keeps the
    activations that timm fuses into its batch norm). Elsewhere they are `SyncBatchNorm2d`.
    """
    if torch.cuda.is_available():
        return convert_sync_batchnorm(module)
    if isinstance(module, nn.BatchNorm2d):
        return SyncBatchNorm2d(module)
    for name, child in module.named_children():
        module.add_module(name, synchronised(child))
    return module


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Replaces a BatchNorm2d, or timm's with its activation, and shares its parameters and buffers.

    In training with a process group, mean and variance are those of all ranks' pixels, even if ranks have different
    numbers of images: every rank must run the same layers in the same order. Otherwise it is a BatchNorm2d.
    """

    def __init__(self, plain: nn.BatchNorm2d) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
        self._parameters.update(plain._parameters)
        self._buffers.update(plain._buffers)
        self.drop: nn.Module = getattr(plain, "drop", None) or nn.Identity()
        self.act: nn.Module = getattr(plain, "act", None) or nn.Identity()
        self.train(plain.training)

    def forward(self, input: Tensor) -> Tensor:
        """[b, C, h, w] -> the same, normalised, with the activation if there is one. In training, all ranks call this."""
        together = self.training and dist.is_initialized() and dist.get_world_size() > 1
        normalised = self._by_all_ranks(input) if together else super().forward(input)
        return self.act(self.drop(normalised))

    def _by_all_ranks(self, x: Tensor) -> Tensor:
        # mean first, then squares: the one-pass E[x^2] - E[x]^2 loses digits needed for equality with one process
        wide = x if x.dtype == torch.float64 else x.float()
        count = wide.new_tensor([wide.numel() / wide.shape[1]])
        total = all_reduce(torch.cat([wide.sum((0, 2, 3)), count]))
        size = total[-1].detach()
        mean = total[:-1] / size
        centred = wide - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / size
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self._track(mean.detach(), variance.detach() * size / (size - 1))
        scaled = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics; momentum None averages over all batches, as in torch."""
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)

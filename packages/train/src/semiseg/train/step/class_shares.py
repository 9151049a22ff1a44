"""What class-uniform sampling came to: which classes the labeled crops of a run really held."""

from collections.abc import Mapping

import torch

from semiseg.data import ClassUniformPlan, Taxonomy
from semiseg.train.step.batches import Batch, Stream


class ClassShares:
    """Counts classes in the labeled crops of every domain with class-uniform sampling, from one line of metrics to the next.

    A checkpoint starts a new count too, so that a resumed run counts what an uninterrupted one does.
    """

    def __init__(self, streams: Mapping[str, Mapping[str, Stream]], taxonomies: Mapping[str, Taxonomy]) -> None:
        watched = [name for name, roles in streams.items() if isinstance(roles["labeled"].plan, ClassUniformPlan)]
        self._names = {domain: taxonomies[domain].names for domain in watched}
        self._counts = {domain: self._none(domain) for domain in watched}

    def add(self, batch: Batch) -> None:
        """Count a batch of this rank, before it goes to the device."""
        for domain in self._counts.keys() & batch.keys():
            masks = batch[domain]["labeled"].masks
            assert masks is not None
            classes = len(self._names[domain])
            pixels = torch.stack([mask.flatten().bincount(minlength=256)[:classes] for mask in masks])
            counts = self._counts[domain]
            counts[0] += (pixels > 0).sum(0)
            counts[1] += pixels.sum(0)
            counts[2] += len(masks)

    def take(self, device: torch.device, world: int) -> dict[str, float]:
        """Shares since the last call, over all ranks: of the crops that hold a class, and of the labeled pixels.

        Named "<domain>/crops_with/<class>" and "<domain>/pixels_of/<class>", in [0, 1]. All ranks call this.
        """
        shares = {}
        for domain, names in self._names.items():
            counts = self._counts[domain].to(device)
            if world > 1:
                torch.distributed.all_reduce(counts)
            self._counts[domain] = self._none(domain)
            crops, pixels, total = counts.tolist()
            for place, name in enumerate(names):
                if total[0]:
                    shares[f"{domain}/crops_with/{name}"] = crops[place] / total[0]
                    shares[f"{domain}/pixels_of/{name}"] = pixels[place] / max(1, sum(pixels))
        return shares

    def counts(self, device: torch.device, world: int) -> dict[str, list[list[int]]]:
        """What was counted since the last call of `take`, over all ranks; for a checkpoint. All ranks call this."""
        found = {}
        for domain, own in self._counts.items():
            counts = own.to(device)
            if world > 1:
                torch.distributed.all_reduce(counts)
            found[domain] = counts.tolist()
        return found

    def restore(self, counts: Mapping[str, list[list[int]]]) -> None:
        """Go on counting from those of a checkpoint; one rank alone calls this."""
        for domain, found in counts.items():
            if domain in self._counts and (kept := torch.tensor(found)).shape == self._counts[domain].shape:
                self._counts[domain] = kept

    def _none(self, domain: str) -> torch.Tensor:
        """int64 [3, C]: crops with each class, pixels of it, and (in every column) crops."""
        return torch.zeros(3, len(self._names[domain]), dtype=torch.int64)

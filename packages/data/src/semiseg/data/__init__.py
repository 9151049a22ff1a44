"""Segmentation data sets as verified WebDataset shards with a reproducible order.

    adapter  = open_dataset("camvid", "path/to/CamVid")      # a publisher's files, found and counted
    manifest = shard(adapter, "train", "shards/")            # written once: planned, parallel, verified
    shards   = ShardSet("shards/camvid/train")               # random access, from here or any fsspec URL
    plan     = Plan(shards, seed=0)                          # an endless order, a pure function of the seed

Names are loaded when they are first used: `import semiseg.data` itself imports nothing else, and never torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semiseg.data.adapter import (
        JSON,
        Adapter,
        Member,
        RawSample,
        Split,
        broken,
        clean_key,
        find_root,
        installed,
        open_dataset,
    )
    from semiseg.data.errors import DataError, SemisegError
    from semiseg.data.keyed import generator, key64, permutation
    from semiseg.data.manifest import Manifest, ShardEntry
    from semiseg.data.merge import merge
    from semiseg.data.overlays import OverlaySet, write_overlay
    from semiseg.data.paint import colourise, contact_sheet, overlay
    from semiseg.data.parts import shard_part
    from semiseg.data.plan import Draw, Ordered, Plan, share
    from semiseg.data.pool import Pool
    from semiseg.data.shard import shard
    from semiseg.data.shards import Sample, ShardSet
    from semiseg.data.subset import by_keys, digest_of, sequence, stratified
    from semiseg.data.tags import image_classes
    from semiseg.data.taxonomy import RawSpace, Taxonomy
    from semiseg.data.testing import AdapterContract as AdapterContract
    from semiseg.data.tree import Tree
    from semiseg.data.uniform import Anchors, ClassUniformPlan
    from semiseg.data.verify import Problem, Report, verify

_HOMES = {
    "adapter": "JSON Adapter Member RawSample Split broken clean_key find_root installed open_dataset",
    "errors": "DataError SemisegError",
    "keyed": "generator key64 permutation",
    "manifest": "Manifest ShardEntry",
    "merge": "merge",
    "overlays": "OverlaySet write_overlay",
    "paint": "colourise contact_sheet overlay",
    "parts": "shard_part",
    "plan": "Draw Ordered Plan share",
    "pool": "Pool",
    "shard": "shard",
    "shards": "Sample ShardSet",
    "subset": "by_keys digest_of sequence stratified",
    "tags": "image_classes",
    "taxonomy": "RawSpace Taxonomy",
    "testing": "AdapterContract",
    "tree": "Tree",
    "uniform": "Anchors ClassUniformPlan",
    "verify": "Problem Report verify",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

# AdapterContract is for tests and needs pytest, so `import *` leaves it alone.
__all__ = [
    "JSON",
    "Adapter",
    "Anchors",
    "ClassUniformPlan",
    "DataError",
    "Draw",
    "Manifest",
    "Member",
    "Ordered",
    "OverlaySet",
    "Plan",
    "Pool",
    "Problem",
    "RawSample",
    "RawSpace",
    "Report",
    "Sample",
    "SemisegError",
    "ShardEntry",
    "ShardSet",
    "Split",
    "Taxonomy",
    "Tree",
    "broken",
    "by_keys",
    "clean_key",
    "colourise",
    "contact_sheet",
    "digest_of",
    "find_root",
    "generator",
    "image_classes",
    "installed",
    "key64",
    "merge",
    "open_dataset",
    "overlay",
    "permutation",
    "sequence",
    "shard",
    "shard_part",
    "share",
    "stratified",
    "verify",
    "write_overlay",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `shard`, `merge` and `verify` functions: importing the modules of those names would put them in their place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

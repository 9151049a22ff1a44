"""Segmentation data sets as verified WebDataset shards with a reproducible order.

    adapter  = open_dataset("camvid", "path/to/CamVid")      # finds and counts a publisher's files
    manifest = shard(adapter, "train", "shards/")            # writes shards once, in parallel, with checksums
    shards   = ShardSet("shards/camvid/train")               # random access, in a folder or at any fsspec URL
    plan     = Plan(shards, seed=0)                          # an endless order, a pure function of the seed

The names are listed in `__init__.pyi` and loaded when first used: `import semiseg.data` imports nothing else, and never torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
# For tests, and needs pytest, so `import *` leaves it out.
__all__.remove("AdapterContract")  # pyright: ignore[reportUnsupportedDunderAll]

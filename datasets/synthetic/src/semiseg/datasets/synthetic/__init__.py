"""Generated scenes with exact labels: `street` and `room`, two sets of classes with different appearance, no download.

adapter = open_dataset("street", train_count=200, size="192x144")
for sample in adapter.samples("train"): ...
"""

from semiseg.datasets.synthetic.adapter import Room, Street

__all__ = ["Room", "Street"]

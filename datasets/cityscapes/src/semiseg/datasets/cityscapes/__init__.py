"""Cityscapes, fine and coarse: 2975 training, 500 validation, 1525 test images of 2048x1024, and 19,997 more for training.

adapter = open_dataset("cityscapes", "path/to/cityscapes")      # unpacked, or the publisher's zips
for sample in adapter.samples("train"): ...
"""

from semiseg.datasets.cityscapes.adapter import Cityscapes

__all__ = ["Cityscapes"]

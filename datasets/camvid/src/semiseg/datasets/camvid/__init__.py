"""CamVid, 11 classes, as SegNet's authors prepared it: 367 training, 101 validation and 233 test images of 480x360.

adapter = open_dataset("camvid", "path/to/CamVid")
for sample in adapter.samples("train"): ...
"""

from semiseg.datasets.camvid.adapter import CamVid

__all__ = ["CamVid"]

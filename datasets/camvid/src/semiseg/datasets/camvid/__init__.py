"""CamVid: 701 images of driving through Cambridge, in SegNet's version (11 classes) or the original (32 classes).

adapter = open_dataset("camvid", "path/to/CamVid")
for sample in adapter.samples("train"): ...
"""

from semiseg.datasets.camvid.adapter import CamVid

__all__ = ["CamVid"]

"""SUN RGB-D, indoor scenes of 37 or 13 classes: 5,285 training and 5,050 test images.

adapter = open_dataset("sunrgbd", "folder/of/SUNRGBD.zip/and/SUNRGBDtoolbox.zip")
for sample in adapter.samples("train"): ...
"""

from semiseg.datasets.sunrgbd.adapter import SUNRGBD

__all__ = ["SUNRGBD"]

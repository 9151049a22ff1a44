"""PASCAL VOC 2012, 21 classes, with the masks of SBD: 1,464 training and 1,449 validation images, 10,582 in trainaug.

adapter = open_dataset("voc", "VOCtrainval_11-May-2012.tar", sbd="benchmark.tgz")
for sample in adapter.samples("trainaug"): ...
"""

from semiseg.datasets.voc.adapter import VOC

__all__ = ["VOC"]

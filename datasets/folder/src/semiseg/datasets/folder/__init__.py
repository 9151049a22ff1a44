"""Your own images and masks as a data set, from a folder or an archive.

adapter = open_dataset("folder", "path/to/roofs", name="roofs")
for sample in adapter.samples("train"): ...
"""

from semiseg.datasets.folder.adapter import Folder

__all__ = ["Folder"]

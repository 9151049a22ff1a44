"""Images and masks of your own as a data set: a folder or archive, as people keep them.

adapter = open_dataset("folder", "path/to/roofs", name="roofs")
for sample in adapter.samples("train"): ...
"""

from semiseg.datasets.folder.adapter import Folder

__all__ = ["Folder"]

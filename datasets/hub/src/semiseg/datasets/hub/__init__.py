"""Any Hugging Face data set with an image and a mask column, as an adapter; and shards as a Hugging Face data set.

adapter = open_dataset("hub", "owner/name")      # or a folder of save_to_disk, parquet files, an imagefolder
dataset = to_hf("shards/name/train")             # a datasets.Dataset
"""

from semiseg.datasets.hub.adapter import Hub
from semiseg.datasets.hub.export import to_hf

__all__ = ["Hub", "to_hf"]

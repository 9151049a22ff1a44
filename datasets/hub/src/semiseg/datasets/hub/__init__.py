"""Hugging Face segmentation data sets for semiseg, and shards as one."""

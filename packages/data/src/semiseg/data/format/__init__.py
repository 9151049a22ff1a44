"""The shard format: manifest, index, tar headers, names of files, and how each stored byte is checked."""

"""The shard format: manifest, index, tar headers, file names, and the checks of every stored byte."""

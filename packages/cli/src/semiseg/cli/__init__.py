"""The `semiseg` command: a frame that finds its commands through entry points and needs no torch itself."""

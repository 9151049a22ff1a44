"""Writing shards: layout, encoding, parallel and partial writing, merging, leftovers of killed writers."""

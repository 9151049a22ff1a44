"""Writing shards: layout, encoding, parallel and partial writing, merging, what a killed writer left."""

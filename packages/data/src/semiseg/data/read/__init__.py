"""Reading shards: random access, pools of sets, prefetching, image-level tags, verification."""

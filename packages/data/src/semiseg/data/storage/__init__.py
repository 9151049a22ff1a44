"""Where bytes are stored: local folders and object stores, retries, locks, the cache, atomic writes."""

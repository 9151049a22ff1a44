"""Where bytes lie: local folders and object stores, retries, locks, the cache, files written whole or not at all."""

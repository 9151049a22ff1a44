"""All that is on disk of one run: folder, checkpoints, records, and what may change when it resumes."""

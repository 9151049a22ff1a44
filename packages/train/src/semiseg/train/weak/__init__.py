"""Masks from image-level tags: the classifier, and the pseudo-labels made from its activation maps."""

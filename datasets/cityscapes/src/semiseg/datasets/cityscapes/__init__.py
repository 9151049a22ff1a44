"""Cityscapes, fine and coarse, for semiseg."""

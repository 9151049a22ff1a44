"""Decoding and converting images and label PNGs, painting labels in colours."""

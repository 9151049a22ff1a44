"""Pixels: decoding images and label PNGs, converting, painting labels in colours."""

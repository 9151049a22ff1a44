"""SUN RGB-D (37 and 13 classes) for semiseg."""

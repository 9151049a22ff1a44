"""PASCAL VOC 2012 and SBD for semiseg."""

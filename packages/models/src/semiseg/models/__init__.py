"""Segmentation networks: any timm encoder, a context module, one main decoder per set of classes."""

from semiseg.models.context import ASPP, FPN, PSP, Projection
from semiseg.models.decoder import DeepLabV3PlusDecoder, LinearDecoder, SubpixelDecoder
from semiseg.models.encoder import Encoder, Features
from semiseg.models.pretrained import create_segmenter, from_pretrained, load_encoder, save_pretrained
from semiseg.models.segmenter import Segmenter

__all__ = [
    "ASPP",
    "FPN",
    "PSP",
    "DeepLabV3PlusDecoder",
    "Encoder",
    "Features",
    "LinearDecoder",
    "Projection",
    "Segmenter",
    "SubpixelDecoder",
    "create_segmenter",
    "from_pretrained",
    "load_encoder",
    "save_pretrained",
]

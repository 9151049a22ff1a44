"""What a training run is, as data: frozen dataclasses that `semiseg.train.load` fills from a TOML file.

Every number has its unit or its range in the docstring of its class; every default is written out by
`semiseg recipe show`. Nothing here does anything: `semiseg.train.build` turns these values into objects, and no class
beyond it sees a recipe.
"""

from semiseg.train.recipe.data import Augment, Data, Domain, Labeled, Subset, Unlabeled, Val
from semiseg.train.recipe.model import PSP, Context, Decoder, Encoder, Linear, Model, NoContext, SubPixel
from semiseg.train.recipe.objectives import (
    Bootstrapped,
    ContextMask,
    CrossConsistency,
    CrossEntropy,
    Dropout,
    FeatureDrop,
    FeatureNoise,
    GuidedCutout,
    Loss,
    Objective,
    ObjectMask,
    Perturbation,
    Ramp,
    Supervised,
    Vat,
)
from semiseg.train.recipe.run import (
    SGD,
    AdamW,
    Checkpoint,
    Constant,
    Cosine,
    Evaluate,
    Log,
    Optimizer,
    Poly,
    Recipe,
    Schedule,
)

__all__ = [
    "PSP",
    "SGD",
    "AdamW",
    "Augment",
    "Bootstrapped",
    "Checkpoint",
    "Constant",
    "Context",
    "ContextMask",
    "Cosine",
    "CrossConsistency",
    "CrossEntropy",
    "Data",
    "Decoder",
    "Domain",
    "Dropout",
    "Encoder",
    "Evaluate",
    "FeatureDrop",
    "FeatureNoise",
    "GuidedCutout",
    "Labeled",
    "Linear",
    "Log",
    "Loss",
    "Model",
    "NoContext",
    "ObjectMask",
    "Objective",
    "Optimizer",
    "Perturbation",
    "Poly",
    "Ramp",
    "Recipe",
    "Schedule",
    "SubPixel",
    "Subset",
    "Supervised",
    "Unlabeled",
    "Val",
    "Vat",
]

"""Semi-supervised segmentation methods for any PyTorch model: losses, perturbations, objectives; needs only torch."""

from semiseg.methods.auxiliary import AuxiliaryBank
from semiseg.methods.cam import class_activation_maps, class_activations
from semiseg.methods.crf import DenseCrf, unary_from_labels, unary_from_probabilities
from semiseg.methods.cross_consistency import CrossConsistency
from semiseg.methods.cutmix import covered, draw_boxes, paste
from semiseg.methods.losses import (
    bootstrapped_cross_entropy,
    bootstrapping_threshold,
    cross_entropy,
    distance,
    hard_cross_entropy,
    pairwise_variance,
)
from semiseg.methods.objective import Features, Losses, Objective, Part, Step, seeded
from semiseg.methods.operators import ChannelScale, Operator, Scale, Shift, SpatialMask
from semiseg.methods.perturbations import (
    PERTURBATIONS,
    ContextMask,
    Dropout,
    FeatureDrop,
    FeatureNoise,
    GuidedCutout,
    ObjectMask,
    Perturbation,
    Vat,
    create_perturbation,
)
from semiseg.methods.prediction import Prediction, connected_components
from semiseg.methods.pseudo import pseudo_labels
from semiseg.methods.ramps import Ramp
from semiseg.methods.relaxed import relaxed_cross_entropy
from semiseg.methods.structure import structure_loss
from semiseg.methods.structured_consistency import StructuredConsistency
from semiseg.methods.supervised import Supervised
from semiseg.methods.teacher import Teacher

__all__ = [
    "PERTURBATIONS",
    "AuxiliaryBank",
    "ChannelScale",
    "ContextMask",
    "CrossConsistency",
    "DenseCrf",
    "Dropout",
    "FeatureDrop",
    "FeatureNoise",
    "Features",
    "GuidedCutout",
    "Losses",
    "ObjectMask",
    "Objective",
    "Operator",
    "Part",
    "Perturbation",
    "Prediction",
    "Ramp",
    "Scale",
    "Shift",
    "SpatialMask",
    "Step",
    "StructuredConsistency",
    "Supervised",
    "Teacher",
    "Vat",
    "bootstrapped_cross_entropy",
    "bootstrapping_threshold",
    "class_activation_maps",
    "class_activations",
    "connected_components",
    "covered",
    "create_perturbation",
    "cross_entropy",
    "distance",
    "draw_boxes",
    "hard_cross_entropy",
    "pairwise_variance",
    "paste",
    "pseudo_labels",
    "relaxed_cross_entropy",
    "seeded",
    "structure_loss",
    "unary_from_labels",
    "unary_from_probabilities",
]

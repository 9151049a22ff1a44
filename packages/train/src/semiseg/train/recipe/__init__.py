"""What a training run is, as data: frozen dataclasses that `semiseg.train.recipe.load` fills from a TOML file.

Every number has its unit or its range in the docstring of its class; every default is written out by
`semiseg recipe show`. Nothing here does anything: `semiseg.train.assemble` turns these values into objects, and no class
below it sees a recipe.
"""

from .data import *  # noqa: F403
from .losses import *  # noqa: F403
from .model import *  # noqa: F403
from .objectives import *  # noqa: F403
from .perturbations import *  # noqa: F403
from .training import *  # noqa: F403

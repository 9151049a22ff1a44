"""Train and evaluate semantic segmentation from recipes.

`load(path, overrides)` reads a recipe, `train(recipe)` runs it, `evaluate(model, shards, taxonomy)` scores a model. Names are
loaded when first used, so that the command line can show its help without torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semiseg.train.evaluate import Scores, evaluate
    from semiseg.train.load import load
    from semiseg.train.loop import Run, train
    from semiseg.train.problems import RecipeError
    from semiseg.train.recipe import Recipe
    from semiseg.train.views import Views

__all__ = ["Recipe", "RecipeError", "Run", "Scores", "Views", "evaluate", "load", "train"]

_HOME = {
    "Recipe": "recipe",
    "RecipeError": "problems",
    "Run": "loop",
    "Scores": "evaluate",
    "Views": "views",
    "evaluate": "evaluate",
    "load": "load",
    "train": "loop",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"semiseg.train.{_HOME[name]}"), name)
    raise AttributeError(f"module 'semiseg.train' has no attribute {name!r}")


class _Package(ModuleType):
    """Keeps `load` and `evaluate` functions: importing the modules of those names would put them in their place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

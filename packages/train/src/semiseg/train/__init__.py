"""Train and evaluate semantic segmentation from recipes.

`load(path, overrides)` reads a recipe, `train(recipe)` runs it, `evaluate(model, shards, taxonomy)` scores a model. The names
are listed in `__init__.pyi` and loaded when first used, so that the command line shows its help without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

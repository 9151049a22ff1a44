"""The public names of semiseg.train, loaded when first used."""

from .loop import Run as Run
from .loop import train as train
from .recipe import Recipe as Recipe
from .recipe.load import load as load
from .recipe.problems import RecipeError as RecipeError
from .score.evaluate import Scores as Scores
from .score.evaluate import evaluate as evaluate
from .score.views import Views as Views

"""Puts the repository's recipes into the distribution, so that an installed `semiseg recipe ls` finds them.

A plain force-include can't: its path to ../../recipes does not exist once the source distribution is unpacked elsewhere.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Recipes(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """`version` is "editable" for a development install, which finds the recipes where they are."""
        packed, repository = Path(self.root, "recipes"), Path(self.root).parents[1] / "recipes"
        recipes = packed if packed.is_dir() else repository
        if version != "editable":
            place = "recipes" if self.target_name == "sdist" else "semiseg/train/recipes"
            build_data["force_include"][str(recipes)] = place

"""The recipes that come with this package: `recipes/` at the repository's root, package data in a wheel."""

from pathlib import Path

from semiseg.train.problems import RecipeError, nearest


def shipped() -> dict[str, Path]:
    """Name -> file of every recipe that comes with this package, sorted by name."""
    here = Path(__file__).resolve()
    folders = [here.parent / "recipes", *(parent / "recipes" for parent in here.parents[5:6])]
    folder = next((each for each in folders if (each / "recipe.schema.json").is_file()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}


def find(recipe: str | Path) -> Path:
    """The file of a recipe given as a path or a shipped one's name; RecipeError with the nearest name if neither."""
    path, known = Path(recipe), shipped()
    if path.is_file():
        return path
    if str(recipe) in known:
        return known[str(recipe)]
    meant = nearest(path.stem, known)
    guess = f"; did you mean '{meant}'?" if meant else ""
    raise RecipeError(
        [f"{recipe}: no such file, and no shipped recipe of that name{guess} known: {', '.join(known) or 'none'}"]
    )


def heading(path: Path) -> str:
    """What a recipe says it is: its first comment line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    return ""

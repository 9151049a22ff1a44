"""The recipes that come with this package: `recipes/` at the repository's root, package data in a wheel."""

from pathlib import Path

from semiseg.train.recipe.problems import RecipeError, nearest


def shipped() -> dict[str, Path]:
    """Name -> file of every recipe that comes with this package, sorted by name."""
    return _listed("*.toml")


def find(recipe: str | Path) -> Path:
    """The file of a recipe, given as a path or by name; RecipeError with the nearest name if there is none."""
    return _find(recipe, shipped(), "recipe")


def find_sweep(sweep: str | Path) -> Path:
    """The file of a sweep, given as a path or as a name in recipes/sweeps; RecipeError if there is none."""
    return _find(sweep, _listed("sweeps/*.toml"), "sweep")


def _find(given: str | Path, known: dict[str, Path], what: str) -> Path:
    path = Path(given)
    if path.is_file():
        if path.suffix.lower() in (".yaml", ".yml", ".json", ".py", ".cfg", ".ini"):
            raise RecipeError(
                [f"{given}: a {what} is a TOML file, NAME.toml; copy one to edit: semiseg recipe cp camvid_cct"]
            )
        return path
    if str(given) in known:
        return known[str(given)]
    if path.is_dir():
        inside = sorted(str(file) for file in path.glob("*.toml"))
        resolved = path / "recipe.toml"
        hint = (
            f"for the {what} of this run: {resolved}"
            if resolved.is_file()
            else f"in it: {', '.join(inside[:5]) or 'none'}"
        )
        images = "" if inside else f"; to write shards of its images: semiseg data shard folder {given} --to shards/"
        raise RecipeError([f"{given}: a folder, expected a {what} (a TOML file or a name); {hint}{images}"])
    meant = nearest(path.stem, known)
    guess = f"; did you mean '{meant}'?" if meant else ";"
    raise RecipeError(
        [f"{given}: no such file, and no included {what} of that name{guess} known: {', '.join(known) or 'none'}"]
    )


def _listed(pattern: str) -> dict[str, Path]:
    package, repository = Path(__file__).resolve().parents[1], Path(__file__).resolve().parents[6:7]
    folders = [package / "recipes", *(root / "recipes" for root in repository)]
    folder = next((path for path in folders if (path / "recipe.schema.json").is_file()), None)
    return {path.stem: path for path in sorted(folder.glob(pattern))} if folder else {}


def heading(path: Path) -> str:
    """A recipe's description: its first comment line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    return ""

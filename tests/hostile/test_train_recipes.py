"""Recipes and sweeps of strangers: every mistake is one line that names the key, at once, and nothing is written."""

import time
from pathlib import Path

import pytest

from semiseg.train.recipe.forecast import beyond_memory
from semiseg.train.recipe.load import load
from semiseg.train.recipe.problems import RecipeError
from semiseg.train.sweep.grid import expand, read_sweep

SECONDS = 15  # 0.2 at most on a machine that is not shared
RECIPES = Path(__file__).parents[2] / "recipes"
GOOD = (RECIPES / "quickstart.toml").read_text()


def refused(path: str | Path, *arguments: str) -> list[str]:
    """The lines of the error."""
    start = time.monotonic()
    with pytest.raises(RecipeError) as caught:
        load(path, arguments)
    assert time.monotonic() - start < SECONDS
    lines = str(caught.value).split("\n")
    assert lines == list(caught.value.faults), "no value of the file makes a line of its own"
    assert len(lines) <= 60 and all(line.isprintable() and len(line) < 2500 for line in lines)
    return lines


def nested(opening: str, closing: str, depth: int) -> str:
    return f"x = {opening * depth}1{closing * depth}\n"


FILES: dict[str, tuple[bytes | str, str]] = {
    "lists": (nested("[", "]", 100_000), "too deep"),
    "lists_30": (nested("[", "]", 30) + GOOD, "more than 24 deep"),
    "tables": (nested("{a = ", "}", 20_000), "too deep"),
    "tables_30": (nested("{a = ", "}", 30) + GOOD, "more than 24 deep"),
    "dots": ("a." * 50_000 + "a = 1\n" + GOOD, "more than 64 parts"),
    "quoted_dots": ('"a" . ' * 20_000 + "a = 1\n" + GOOD, "more than 64 parts"),
    "header": ("[" + ".".join("a" * 40) + "]\n", "more than 24 deep"),
    "unclosed": ("x = " + "[" * 100_000, "too deep"),
    "digits": ("seed = " + "1" * 5000 + "\n", "cannot be read (Exceeds the limit"),
    "hexadecimal": ("seed = 0x" + "f" * 100_000 + "\n" + GOOD.replace("\nseed", "\n# seed"), "400000 bits"),
    "keys": ("".join(f"k{i} = 1\n" for i in range(100_000)), "more than 256 kB"),
    "values": (f"x = [{'1,' * 50_000}]\n" + GOOD, "more than 5,000 values"),
    "unknown": ("".join(f"k{i} = 1\n" for i in range(900)) + GOOD, "and 850 more"),
    "comment": (b"#" * 50_000_000, "more than 256 kB"),
    "zeros": (bytes(1000), "not TOML"),
    "binary": (bytes(range(256)) * 9, "not UTF-8 text"),
    "utf16": (GOOD.encode("utf-16"), "not UTF-8 text"),
    "twice": ("steps = 1\nsteps = 2\n", ":2: not TOML: cannot overwrite"),
    "escape": ('"a\\u001b[2J\\nx.toml:1: fake" = 1\n' + GOOD, "a\\x1b[2J\\nx.toml:1: fake: unknown key"),
    "value": ('precision = "\\u001b]0;title\\u0007\\u202e"\n' + GOOD, "expected \"auto\""),
    "html": ("control = \"<script>alert(1)</script>\"\n" + GOOD, "expected true or false"),
    "empty": (b"", "missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_recipes(tmp_path: Path, name: str) -> None:
    content, words = FILES[name]
    path = tmp_path / "x.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    lines = refused(path)
    assert any(words in line for line in lines), lines
    assert all(str(path) in line for line in lines)


ARGUMENTS = [
    "seed=" + "1" * 5000, "seed=0x" + "f" * 90_000, "steps=1e300", "steps=nan", "steps=inf", "steps=-1", "steps=0",
    "steps=true", "steps=10000000000", "seed=-1", "seed=99999999999999999999", "optimizer.lr=nan",
    "optimizer.lr=1e300", "optimizer.lr=0",
    "evaluate.scales=[1e300]", "evaluate.scales=[0.0001]", "evaluate.scales=[]", "evaluate.scales=[-1]",
    "evaluate.scales=[nan]",
    "evaluate.scales=[9]", "evaluate.tile={size=[1,1]}", "evaluate.tile={size=[64,-64]}",
    "evaluate.tile={size=[64,64],overlap=1}",
    "evaluate.tile={size=[64,64],overlap=0.999}", "evaluate.tile={size=[100000,64]}", "data.workers=100000", "data.workers=-1",
    "data.domains.street.augment.crop=[0,64]", "data.domains.street.augment.crop=[1000000000,1000000000]",
    "data.domains.street.augment.crop=[-64,-64]", "data.domains.street.augment.scale=[1e-400,2]",
    "data.domains.street.augment.scale=[1,1000]", "data.domains.street.augment.flip=2", "data.domains.street.weight=-1",
    "data.domains.street.labeled.batch_size=10000000000", "data.domains.street.labeled.batch_size=0",
    "model.context.channels=1000000000", "model.context.channels=-1", "model.context.channels=65537", "model.encoder=[]",
    "name=../../victim", "name=/abs/victim", "name=a/b", "name=..", "name=.", "name=", "name=-rf", "name=[/road]",
    "name=a\nb", "name=a\x1b[2J", "name=a\u202eb", "name=a b", "name=a\\b", "name=" + "x" * 201, "name=~", "name=$HOME",
    "data.domains.'../x'.weight=1", "a." * 100_000 + "b=1", "a." * 300 + "b=1", "x=" + "[" * 100_000, "no equals", "=1",
    "objectives.99999999999999999999.kind=x", "objectives.-1.kind=x", "\x1b[2J=1", "a\nb=1", "expect.x=1",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ARGUMENTS)))
def test_arguments_that_no_run_can_have(number: int) -> None:
    refused(RECIPES / "quickstart.toml", ARGUMENTS[number])


def test_a_hundred_thousand_arguments_are_refused_at_once() -> None:
    (line,) = refused(RECIPES / "quickstart.toml", *(f"k{i}=1" for i in range(100_000)))
    assert "100,000 arguments, expected 1,000 at most" in line


@pytest.mark.parametrize("place", ["", "/", "a\0b", "x" * 5000, "/dev/zero", "/nowhere/x.toml", "a\x1b[2J", "a\nb"])
def test_places_that_hold_no_recipe(place: str) -> None:
    refused(place)


def test_what_a_recipe_may_hold_is_read_as_before(tmp_path: Path) -> None:
    plain = load(RECIPES / "quickstart.toml")
    for name, content in {"bom": b"\xef\xbb\xbf" + GOOD.encode(), "crlf": GOOD.replace("\n", "\r\n").encode()}.items():
        path = tmp_path / f"{name}.toml"
        path.write_bytes(content)
        assert load(path) == plain
    assert load(RECIPES / "quickstart.toml", ["seed=9007199254740993"]).seed == 2**53 + 1
    assert load(RECIPES / "quickstart.toml", ["name=" + "x" * 200]).name == "x" * 200


SWEEP = 'name = "s"\nrecipe = "{recipe}"\n[axes.seed]\nkey = "seed"\nvalues = {values}\n'


@pytest.mark.parametrize(
    "text",
    [
        SWEEP.format(recipe="quickstart", values="[" * 50_000),
        SWEEP.format(recipe="quickstart", values=f"[{'1,' * 60_000}]"),
        SWEEP.format(recipe="quickstart", values="[nan, nan]"),
        SWEEP.format(recipe="quickstart", values='["../../victim", "/abs"]'),
        SWEEP.format(recipe="quickstart", values="[1, 1.0e400]"),
        SWEEP.format(recipe="/etc/passwd", values="[1]"),
        SWEEP.format(recipe="http://127.0.0.1:9/recipe.toml", values="[1]"),
        SWEEP.format(recipe="quickstart", values="[1]").replace('"s"', '"../victim"'),
        SWEEP.format(recipe="quickstart", values="[1]").replace('"s"', '"s\\u001b"'),
        SWEEP.format(recipe="quickstart", values="[1]").replace("axes.seed", 'axes."a\\nb"') + "repeats = 3\n",
        SWEEP.format(recipe="quickstart", values="[1]") + '[axes.x.sets]\na = ["name=../victim"]\nb = ["runs="]\n',
        "".join(
            f'[axes.a{i}.sets]\nx = ["k{i}=1"]\ny = ["k{i}=2"]\n' for i in range(30)
        ).join(['name = "s"\nrecipe = "quickstart"\n', ""]),
    ],
    ids=range(12),
)  # fmt: skip
def test_sweeps_that_no_one_can_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    start = time.monotonic()
    with pytest.raises(RecipeError) as caught:
        expand(read_sweep(path))
    assert time.monotonic() - start < 2 * SECONDS
    assert all(line.isprintable() for line in caught.value.faults) and len(caught.value.faults) < 70
    assert [file.name for file in tmp_path.iterdir()] == ["x.toml"]


STREET = "data.domains.street."


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (
            f"{STREET}augment.crop=[65536,65536]",
            "take 206 GB as bare pixels, and this machine has 16 GB; lower it, or augment.crop",
        ),
        (f"{STREET}labeled.batch_size=1000000", "1,000,000 images of 96x128 take 147 GB as bare pixels"),
        (f"{STREET}augment={{resize=[65536,65536]}}", "one image of 65536x65536 takes 52 GB"),
        ("objectives.1.perturbations.0.count=100000000", "auxiliary decoders, expected 1,000 at most"),
    ],
)
def test_what_fits_into_no_memory_is_refused_before_anything_is_built(argument: str, words: str) -> None:
    recipe = load(RECIPES / "quickstart.toml", [argument])
    found = [problem.what for problem in beyond_memory(recipe, memory=16_000_000_000)]
    assert any(words in what for what in found), found
    assert not list(beyond_memory(load(RECIPES / "quickstart.toml"), memory=16_000_000_000))

"""From TOML and arguments to a recipe: what is read, and how every mistake is reported."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from semiseg.train.recipe import SGD, CrossConsistency, Dropout, Objective, Poly, Recipe, Subset
from semiseg.train.recipe.load import RecipeError, changes, digest, load, to_toml

TEXT = """\
# A small recipe.
name = "small"
steps = 100
expect = { "voc/miou" = 69.4 }

[data.domains.voc]
taxonomy = "voc-21"
augment = { scale = [0.5, 2.0], crop = [320, 320] }
labeled = { dataset = "voc", split = "train", batch_size = 10 }
unlabeled = { dataset = "voc", split = ["train", "extra"], minus = "labeled", batch_size = 10 }
val = { dataset = "voc", split = "val" }

[model]
encoder = { name = "resnet50s" }

[[objectives]]
kind = "supervised"

[[objectives]]
kind = "cross_consistency"
weight = { value = 30 }
perturbations = [
  { kind = "dropout", count = 6 },
  { kind = "feature_drop" },
]

[optimizer]
kind = "sgd"
lr = 1e-2
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small recipe as x.toml in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text(TEXT)
    return Path("x.toml")


def faults(text: str, *overrides: str) -> list[str]:
    """The mistakes in x.toml with this text."""
    Path("x.toml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load("x.toml", overrides)
    assert str(caught.value).splitlines() == list(caught.value.faults)
    return list(caught.value.faults)


def test_values_and_defaults(path: Path) -> None:
    recipe = load(path)
    domain = recipe.data.domains["voc"]
    assert domain.augment.scale == (0.5, 2.0)
    assert domain.augment.flip == 0
    assert domain.unlabeled and domain.unlabeled.splits == ("train", "extra")
    assert domain.labeled.splits == ("train",)
    assert recipe.schedule == Poly(power=0.9, warmup=0)
    objective = recipe.objectives[1]
    assert isinstance(objective, CrossConsistency)
    assert objective.weight.value == 30.0 and isinstance(objective.weight.value, float)
    assert objective.perturbations[0] == Dropout(count=6, p=None)


# ---- complete messages -------------------------------------------------------------------------------------------------


def test_an_unknown_kind(path: Path) -> None:
    assert faults(TEXT.replace('"dropout"', '"droput"')) == [
        "x.toml:23: objectives.1.perturbations.0.kind: unknown kind 'droput'; did you mean 'dropout'? known: "
        "context_mask, dropout, feature_drop, feature_noise, guided_cutout, object_mask, vat"
    ]


def test_an_unknown_key(path: Path) -> None:
    assert faults(TEXT.replace("weight = { value", "weight = { vlaue")) == [
        "x.toml:21: objectives.1.weight.vlaue: unknown key; did you mean 'value'?"
    ]


def test_an_unknown_key_in_an_argument(path: Path) -> None:
    assert faults(TEXT, "optimizer.lrr=0.1") == [
        "argument 'optimizer.lrr=0.1': unknown key; did you mean 'optimizer.lr'?"
    ]


def test_five_mistakes_and_more_at_once(path: Path) -> None:
    text = TEXT.replace("steps = 100", "steps = true").replace('"resnet50s" }', '"resnet50s", output_stride = 4 }')
    text = text.replace('kind = "supervised"', 'kind = "supervized"').replace("crop = [320, 320]", "crop = [320]")
    text = text.replace("lr = 1e-2", 'lr = "fast"').replace('taxonomy = "voc-21"\n', "")
    kinds = sorted(member.kind for member in get_args(get_args(Objective)[0]))
    assert faults(text, "model.norm=frozn", "objectives.1.weight={over=2}") == [
        "x.toml:3: steps: expected an integer >= 1, found true",
        "x.toml:6: data.domains.voc.taxonomy: missing; expected a string",
        "x.toml:7: data.domains.voc.augment.crop: expected a list of 2, each an integer >= 1 and <= 65536, found [320]",
        "x.toml:13: model.encoder.output_stride: expected 8 or 16 or 32, found 4",
        "x.toml:16: objectives.0.kind: unknown kind 'supervized'; did you mean 'supervised'? "
        f"known: {', '.join(kinds)}",
        'x.toml:28: optimizer.lr: expected a number > 0, found "fast"',
        'argument \'model.norm=frozn\': expected "batch" or "sync" or "frozen", found "frozn"; did you mean \'frozen\'?',
        "argument 'objectives.1.weight={over=2}': objectives.1.weight.over: expected a number > 0 and <= 1, found 2",
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("steps = 100\n", "", "x.toml: steps: missing; expected an integer >= 1"),
        ("steps = 100", "steps = 1e2", "x.toml:3: steps: expected an integer >= 1, found 100.0"),
        ('name = "small"', 'name = ""', "x.toml:2: name: empty; expected a string"),
        ("lr = 1e-2", "lr = inf", "x.toml:29: optimizer.lr: expected a number > 0, found Infinity"),
        ("lr = 1e-2", "lr = true", "x.toml:29: optimizer.lr: expected a number > 0, found true"),
        ('"sgd"\n', '"sgd"\nbetas = [0, 0]\n', "x.toml:29: optimizer.betas: unknown key; known: kind, lr, momentum, "
         "weight_decay, nesterov, encoder_lr_scale"),
        ('kind = "sgd"\n', "", "x.toml:27: optimizer.kind: missing; known: adamw, sgd"),
        ('split = "train"', "split = [1]", "x.toml:9: data.domains.voc.labeled.split: expected a string or a list, "
         "each item a string, found [1]"),
        ('split = "train"', "split = []", "x.toml:9: data.domains.voc.labeled.split: empty; expected a string or "
         "a list, each item a string"),
        ('encoder = { name = "resnet50s" }', 'encoder = "resnet50s"', 'x.toml:14: model.encoder: expected a table, '
         'found "resnet50s"'),
        ("batch_size = 10 }\nunl", 'batch_size = "10" }\nunl', 'x.toml:9: data.domains.voc.labeled.batch_size: '
         'expected an integer >= 1, found "10"'),
        ("  { kind = \"feature_drop\" },", "  3,", "x.toml:24: objectives.1.perturbations.1: expected a table, found 3"),
    ],
)  # fmt: skip
def test_one_mistake_gives_one_line(path: Path, old: str, new: str, fault: str) -> None:
    assert old in TEXT
    assert faults(TEXT.replace(old, new)) == [fault]


def test_text_that_is_not_toml(path: Path) -> None:
    assert faults("name = \n") == ["x.toml:1: not TOML: invalid value (column 8)"]
    assert faults('name = "a"\nlist = [1,\n')[0].startswith("x.toml:2: not TOML: ")
    assert faults("a = 1\na = 2\n")[0].startswith("x.toml:2: not TOML: cannot overwrite a value")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8 text"):
        load(path)
    with pytest.raises(RecipeError, match=r"y\.toml: cannot be read"):
        load("y.toml")


# ---- rules between values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["name=a/b"], "'a/b' cannot name a folder"),
        (["data.domains.voc.augment.scale=[2, 1]"], "expected [lowest, highest], found [2, 1]"),
        (["data.domains.voc.augment.crop="], "needs images of one size, and augment.scale varies it; add augment.crop"),
        (["accumulate=11"], "10 images cannot be split into accumulate = 11 micro-steps; lower accumulate to 10"),
        (["data.domains.voc.unlabeled.dataset=coco"], "nothing to leave out: labeled images come from 'voc'"),
        (["data.domains.voc.unlabeled.split=['a', 'a']"], "names a split twice"),
        (["data.domains.voc.val.subset.count=3", "data.domains.voc.val.ids=f"], "given together with 'subset'; keep one"),
        (["data.domains.voc.unlabeled="], "missing, and objectives.1 (cross_consistency) needs it"),
        (['expect."vok/miou"=3'], "unknown result; known: voc/miou; did you mean"),
        (['expect."voc/miou"=0.5e3'], "500 is not a mean IoU; expected percent"),
        (["data.domains.voc.val="], "unknown result; known: none, as no domain has a val source"),
        (["objectives.1={kind='supervised'}"], "a second 'supervised' for domain voc; keep one, or set domains"),
        (["objectives.0.domains=['vox']"], "no domain 'vox'; known: voc"),
        (["data.domains.room={taxonomy='t', labeled={dataset='d', split='s', batch_size=1}}", "objectives.0.domains=['room']"],
         "nothing trains the main decoder of domain voc"),
        (["data.domains.room={taxonomy='t', labeled={dataset='d', split='s', batch_size=1}}", "objectives.1.domains=['room']"],
         "missing, and objectives.1 (cross_consistency) needs it"),
        (["objectives=[{kind='cross_consistency', perturbations=[{kind='vat'}]}]"], "nothing trains the main decoder"),
        (["objectives.1.weight={start=0.95}"], "the ramp ends after training: start + over = 1.05"),
        (["objectives.1.perturbations.1={kind='feature_drop', low=0.9, high=0.6}"], "0.9 is above high = 0.6"),
        (["optimizer.momentum=0", "optimizer.nesterov=true"], "needs a momentum above 0"),
        (["schedule={kind='cosine', warmup=100}"], "100 of 100 steps: the learning rate would never reach lr"),
        (["data.domains.\"a b\"={taxonomy='t', labeled={dataset='d', split='s', batch_size=1}}"], "cannot name a domain"),
    ],
)  # fmt: skip
def test_rules_name_the_remedy(path: Path, overrides: list[str], fault: str) -> None:
    found = faults(TEXT, *overrides)
    assert any(fault in line for line in found), found


def test_domains_with_and_without_unlabeled_images_can_be_combined(path: Path) -> None:
    table = "{taxonomy='t', labeled={dataset='d', split='s', batch_size=1}}"
    assert set(load(path, [f"data.domains.other={table}"]).data.domains) == {"voc", "other"}


# ---- arguments -----------------------------------------------------------------------------------------------------------


def test_arguments_are_toml_or_else_strings(path: Path) -> None:
    recipe = load(
        path,
        [
            "steps=7",
            "name=other",
            'paper="7"',
            "objectives.1.weight.value=10",
            "objectives.1.perturbations.0.p=0.25",
            "data.domains.voc.labeled.subset.count=50",
            "data.domains.voc.val.subset={count = 5, seed = 1}",
            "data.shards=s3://bucket/a=b",
            "deterministic=true",
            'expect."voc/miou"=60',
        ],
    )
    assert (recipe.steps, recipe.name, recipe.paper, recipe.deterministic) == (7, "other", "7", True)
    objective, domain = recipe.objectives[1], recipe.data.domains["voc"]
    assert isinstance(objective, CrossConsistency)
    assert (objective.weight.value, objective.perturbations[0]) == (10, Dropout(count=6, p=0.25))
    assert domain.labeled.subset == Subset(count=50, seed=0)
    assert domain.val and domain.val.subset == Subset(count=5, seed=1)
    assert recipe.data.shards == "s3://bucket/a=b"
    assert recipe.expect == {"voc/miou": 60.0}


def test_an_empty_value_removes_a_key(path: Path) -> None:
    subset = ["data.domains.voc.labeled.subset.count=50", "data.domains.voc.labeled.subset="]
    assert load(path, [*subset, "objectives.1.weight.value="]) == load(path)
    assert faults(TEXT, "steps=") == ["argument 'steps=': missing; expected an integer >= 1"]


def test_null_is_answered_with_how_to_unset_a_key(path: Path) -> None:
    key = "data.domains.voc.labeled.subset"
    assert faults(TEXT, f"{key}=null", "clip=None") == [
        f"argument '{key}=null': expected a table, found \"null\"; to unset it, leave the key out, or write "
        f"'{key}=' as an argument",
        "argument 'clip=None': expected a number > 0, found \"None\"; to unset it, leave the key out, or write "
        "'clip=' as an argument",
    ]


def test_a_value_of_a_string_key_is_a_string(path: Path) -> None:
    """As typed, even if it looks like a number or a date; within tables and lists TOML's rules apply."""
    typed = [
        "name=1.50",
        "paper=true",
        "runs=1e3",
        "data.shards=1979-05-27T07:32:00Z",
        "data.domains.voc.val.split=0x10",
    ]
    recipe = load(path, [*typed, 'expect."voc/miou"=60'])
    assert (recipe.name, recipe.paper, recipe.runs) == ("1.50", "true", "1e3")
    assert recipe.data.shards == "1979-05-27T07:32:00Z" and recipe.data.domains["voc"].val.splits == ("0x10",)  # type: ignore[union-attr]
    assert load(path, ["name=2", "name=3"]).name == "3" and load(path, ["name='3'"]).name == "3"
    assert faults(TEXT, "name=[1]", "steps=1.5", "model={encoder={name=3}}") == [
        "argument 'name=[1]': expected a string, found [1]",
        "argument 'steps=1.5': expected an integer >= 1, found 1.5",
        "argument 'model={encoder={name=3}}': model.encoder.name: expected a string, found 3",
    ]
    assert faults(TEXT.replace('"small"', "1")) == ["x.toml:2: name: expected a string, found 1"]


def test_all_arguments_without_a_place_are_reported(path: Path) -> None:
    arguments = ["steps", "objectives.2.kind=x", "objectives.kind=x", "steps.more=1", "clip=", "a b=1", "objectives.2="]
    assert faults(TEXT, *arguments) == [
        "argument 'steps': expected key=value, such as steps=100, or key= to remove a key",
        "argument 'objectives.2.kind=x': 'objectives' has 2 items, numbered from 0; there is no item '2'",
        "argument 'objectives.kind=x': 'objectives' has 2 items, numbered from 0; there is no item 'kind'",
        "argument 'steps.more=1': 'steps' is 100, which has no key 'more'",
        "argument 'clip=': nothing to remove: this key is not set",
        "argument 'a b=1': 'a b' is not a dotted key; quote parts with special characters: a.\"b c\".d",
        "argument 'objectives.2=': 'objectives' has 2 items, numbered from 0; there is no item '2'",
    ]


def test_the_argument_is_reported_and_not_the_line_it_replaced(path: Path) -> None:
    assert faults(TEXT, "data.domains.voc.labeled={dataset='voc', split='a', batch_size=0}") == [
        "argument 'data.domains.voc.labeled={dataset='voc', split='a', batch_size=0}': "
        "data.domains.voc.labeled.batch_size: expected an integer >= 1, found 0"
    ]
    assert faults(TEXT, "optimizr.lr=1") == ["argument 'optimizr.lr=1': unknown key; did you mean 'optimizer'?"]


# ---- resolved ------------------------------------------------------------------------------------------------------------


def test_a_resolved_recipe_is_read_back_equal(path: Path) -> None:
    awkward = 'back\\slash "quotes" \t\u007f\u00e9\u2028 # =\n'
    for recipe in (load(path), load(path, ["clip=1e-7", "seed=9007199254740993"]), _everything(load(path), awkward)):
        path.write_text(to_toml(recipe), encoding="utf-8")
        again = load(path)
        assert again == recipe
        assert to_toml(again) == to_toml(recipe)
        assert digest(again) == digest(recipe)
        path.write_text(TEXT)


def _everything(recipe: Recipe, text: str) -> Recipe:
    """A recipe with awkward texts and a second domain, in this order."""
    voc = recipe.data.domains["voc"]
    other = replace(voc, taxonomy=text, labeled=replace(voc.labeled, subset=Subset(count=3), ids=None))
    domains = {"z-1": other, "voc": voc, "0": replace(other, unlabeled=None)}
    return replace(recipe, paper=text, clip=2.0, data=replace(recipe.data, shards=text, domains=domains))


def test_the_digest_covers_only_what_affects_the_result(path: Path) -> None:
    recipe = load(path)
    same = ["name=n", "runs=r", "paper=p", "expect={}", "data.shards=s", "data.workers=9", "log.every=1",
            "evaluate.every=7", "checkpoint.keep=9"]  # fmt: skip
    other = ["seed=1", "steps=101", "data.window=2", "precision=no", "model.norm=frozen", "optimizer.lr=0.02",
             "objectives.1.perturbations.0.count=5", "data.domains.voc.labeled.subset.count=5", "accumulate=2"]  # fmt: skip
    assert all(digest(load(path, [argument])) == digest(recipe) for argument in same)
    assert len({digest(load(path, [argument])) for argument in other} | {digest(recipe)}) == len(other) + 1
    made = replace(recipe, optimizer=SGD(lr=1, momentum=0))  # ints, where a file gives floats
    assert digest(made) == digest(load(path, ["optimizer={kind='sgd', lr=1, momentum=0}"]))


def test_changes_are_named_by_their_keys(path: Path) -> None:
    before = load(path)
    after = load(path, ["name=n", "optimizer.lr=0.1", "data.domains.voc.labeled.subset.count=3"])
    lr = "optimizer.lr: 0.01 -> 0.1"
    subset = [
        "data.domains.voc.labeled.subset.count: (not set) -> 3",
        "data.domains.voc.labeled.subset.seed: (not set) -> 0",
    ]
    assert sorted(changes(before, after)) == [*subset, lr]
    assert 'name: "small" -> "n"' in changes(before, after, incidental=True)
    assert changes(before, before, incidental=True) == []


def test_messages_can_show_values_that_json_does_not_know(path: Path) -> None:
    assert faults(TEXT, "steps=1979-05-27") == [
        "argument 'steps=1979-05-27': expected an integer >= 1, found \"1979-05-27\""
    ]
    assert json.loads(json.dumps(load(path, ["name=1979-05-27"]).name)) == "1979-05-27"

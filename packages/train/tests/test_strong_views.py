"""Strong views: what is distorted, by which key; recipes with FixMatch and UniMatch; what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from semiseg.data import generator
from semiseg.methods import FixMatch
from semiseg.train.assemble.learner import build_learner
from semiseg.train.assemble.model import build_model
from semiseg.train.assemble.sources import build_sources
from semiseg.train.loop import train
from semiseg.train.recipe import Recipe
from semiseg.train.recipe.load import load
from semiseg.train.recipe.problems import RecipeError
from semiseg.train.recipe.shards import classes_of
from semiseg.train.step.batches import StepData, micro_steps
from semiseg.train.step.distortion import Distortion

STRONG = "data.domains.street.unlabeled.strong"
SEVEN = ", ".join(
    f"{{kind='{kind}'}}"
    for kind in ("dropout", "feature_drop", "feature_noise", "guided_cutout", "vat", "context_mask", "object_mask")
)
SUPERVISED = "{kind='supervised', loss={kind='bootstrapped', class_weights={}}}"


def picture() -> Tensor:
    return torch.randint(0, 256, (3, 20, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_change_has_its_probability_and_strength() -> None:
    image = picture()
    nothing: dict[str, Any] = {"jitter": 0.0, "grey": 0.0, "blur": 0.0}
    assert torch.equal(Distortion(**nothing)(image, key=("k",))[0], image)
    counts = {"jitter": 0, "grey": 0, "blur": 0}
    for draw in range(300):
        for name in counts:
            chosen: dict[str, Any] = nothing | {name: 0.4}
            own = Distortion(**chosen)(image, key=("p", draw))[0]
            counts[name] += not torch.equal(own, image)
            if name == "grey" and not torch.equal(own, image):
                assert torch.equal(own[0], own[1]) and torch.equal(own, tv.rgb_to_grayscale(image, 3))
    assert all(90 < count < 150 for count in counts.values()), counts
    for draw in range(50):  # the brightness of a flat grey image shows the factor
        flat = torch.full((3, 4, 4), 100, dtype=torch.uint8)
        own = Distortion(jitter=1, contrast=0, saturation=0, hue=0, grey=0, blur=0)(flat, key=("b", draw))[0]
        factor = 0.5 + generator("b", draw, 0).random(9)[2]
        assert abs(int(own[0, 0, 0]) - 100 * factor) <= 1


def test_two_views_differ_and_a_key_decides_both() -> None:
    first = Distortion(views=2)(picture(), key=("a", 1))
    assert first.shape == (2, 3, 20, 28) and first.dtype == torch.uint8
    assert torch.equal(first, Distortion(views=2)(picture(), key=("a", 1)))
    assert torch.equal(first[:1], Distortion(views=1)(picture(), key=("a", 1)))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, Distortion(views=2)(picture(), key=("a", 2)))


def test_strong_views_travel_with_their_images_on_any_number_of_processes(tiny: Callable[..., Recipe]) -> None:
    recipe = tiny(f"{STRONG}={{views=2}}", f"objectives=[{SUPERVISED}, {{kind='unimatch'}}]")
    built = build_sources(recipe, fill=(0, 0, 0))
    whole = StepData(built.streams)[1]
    assert isinstance(whole, dict)
    samples = whole["street"]["unlabeled"]
    assert samples.strong is not None and samples.partners_strong is not None and samples.partners is not None
    assert samples.strong.shape == samples.partners_strong.shape == (3, 2, 3, 32, 48)
    assert whole["street"]["labeled"].strong is None
    for image, views, position in zip(samples.images, samples.strong, samples.positions, strict=True):
        expected = Distortion(views=2)(image, key=(recipe.seed, "strong", "street/unlabeled", position))
        assert torch.equal(views, expected)
    shares = [StepData(built.streams, rank=rank, world=2)[1] for rank in range(2)]
    parts = [share["street"]["unlabeled"] for share in shares if isinstance(share, dict)]
    together = [part.strong for part in parts if part.strong is not None]
    assert torch.equal(torch.cat(together), samples.strong)
    micro = [own["street"]["unlabeled"].partners_strong for own in micro_steps(whole, 2)]
    assert torch.equal(torch.cat([own for own in micro if own is not None]), samples.partners_strong)
    plain = StepData(build_sources(tiny(), fill=(0, 0, 0)).streams)[1]
    assert isinstance(plain, dict) and plain["street"]["unlabeled"].strong is None


@pytest.mark.parametrize(
    ("views", "objective", "found"),
    [
        (1, "{kind='fixmatch', threshold=0.3, class_weights={}}", {"names": "teacher", "mix": "cutmix"}),
        (1, "{kind='fixmatch', names='student', mix='none', feature_drop=0.5}", {"feature_drop": 0.5, "mix": "none"}),
        (2, "{kind='unimatch', version=1, threshold=0.2}", {"names": "student", "feature_drop": 0.5}),
        (
            1,
            f"{{kind='fixmatch'}}, {{kind='taught_consistency', start='main', perturbations=[{SEVEN}]}}",
            {"mix": "cutmix"},
        ),
        (2, "{kind='unimatch', mix='classmix'}", {"names": "teacher", "complementary": True, "mix": "classmix"}),
    ],
)
@pytest.mark.parametrize("batches", ["separate", "joint"])
def test_recipes_train(
    tiny: Callable[..., Recipe], views: int, objective: str, found: dict[str, object], batches: str
) -> None:
    recipe = tiny(f"{STRONG}={{views={views}}}", f"objectives=[{SUPERVISED}, {objective}]", f"model.batches={batches}")
    sources = build_sources(recipe, fill=(0, 0, 0))
    model = build_model(recipe.model, classes_of(recipe))
    learner = build_learner(recipe, model, sources.taxonomies, sources.class_pixels).train()
    method = learner.objectives["street"][1]  # type: ignore[index]
    own = {**vars(method), **vars(method.strong)} if isinstance(method, FixMatch) else {}
    assert isinstance(method, FixMatch) and {name: own[name] for name in found} == found
    assert (learner.teacher is not None) == (method.strong.names == "teacher")
    assert (method.weights is not None) == ("class_weights" in objective)
    batch = StepData(sources.streams)[0]
    assert isinstance(batch, dict)
    losses = learner(batch, step=1, steps=4)
    more = {"street/taught"} if "taught" in objective else set()
    assert {"street/supervised", "street/fixmatch"} | more == set(losses.terms)
    losses.total.backward()
    assert all(own.grad is not None for own in learner.parameters() if own.requires_grad)


def test_a_run_with_fixmatch_repeats_itself_bit_for_bit(recipe_file: Callable[..., Path]) -> None:
    common = [
        f"{STRONG}={{}}",
        f"objectives=[{SUPERVISED}, {{kind='fixmatch', threshold=0.2}}]",
        "evaluate.weights=both",
        "model.batches=joint",
        "steps=4",
    ]
    runs = []
    for name, workers in (("one", 0), ("two", 2)):
        folder = train(load(recipe_file(), [*common, f"name={name}", f"data.workers={workers}"]), quiet=True).folder
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        runs.append([{key: value for key, value in line.items() if key not in ("seconds", "waited")} for line in lines])
    assert runs[0] == runs[1]
    assert sum("street/fixmatch" in line for line in runs[0]) == 4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objectives.1={kind='fixmatch'}"], "needs strong views; add strong = {}"),
        (["objectives.1={kind='unimatch'}", f"{STRONG}={{}}"], "needs two strong views; set views = 2"),
        ([f"{STRONG}={{}}"], "no objective of this domain uses strong views"),
        ([f"{STRONG}={{sigma=[2, 1]}}", "objectives.1={kind='fixmatch'}"], "sigma"),
        (["objectives.1={kind='fixmatch', area=[0.5, 0.1]}", f"{STRONG}={{}}"], "is not a range of shares"),
        (["data.domains.street.augment.rotate=0.5"], "set a square augment.crop"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    recipe_file: Callable[..., Path], overrides: list[str], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        load(recipe_file(), overrides)


def test_hue_moves_no_grey_pixel() -> None:
    grey = torch.from_numpy(np.arange(0, 240, dtype=np.uint8).reshape(1, 12, 20)).expand(3, -1, -1)
    own = Distortion(jitter=1, brightness=0, contrast=0, saturation=0, hue=0.5, grey=0, blur=0)(grey, key=("h",))[0]
    assert (own.int() - grey.int()).abs().max() <= 1

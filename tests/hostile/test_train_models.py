"""Models of strangers: every wrong config.json and every wrong file of weights is one error that names the place, at once."""

import json
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from semiseg.data import SemisegError
from semiseg.models import create_segmenter, from_pretrained, load_encoder, save_pretrained
from semiseg.train.score.saved import open_model, views_of
from semiseg.train.score.views import Views

SECONDS = 20  # 0.7 at most on a machine that is not shared
NAME = "mobilenetv3_small_100"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = create_segmenter(encoder=NAME, classes={"street": 5}, context="none", context_channels=16, weights="none")
    return save_pretrained(model, tmp_path_factory.mktemp("stranger") / "model", metadata={"step": 3})


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


def refused(act: Callable[[], Any], *words: str) -> str:
    """The one line of the error."""
    start = time.monotonic()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        act()
    assert time.monotonic() - start < SECONDS
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) < 1500
    assert message.isprintable(), "no control characters"
    assert all(word in message for word in words), message
    return message


BIG = 10**9
VALUES: dict[str, list[Any]] = {
    "encoder": [None, 5, "", "resnet5o", "no/such", "hf-hub:evil/model", "a\x1b[2J", ["x"], "resnet18", "x" * 10_000],
    "output_stride": [None, 0, -8, 8.5, "8", True, BIG, 10**400, 16, []],
    "low_stride": [0, -1, BIG, "4", 3, 2.5, [4]],
    "levels": [[0], [BIG], "8", [8] * 1000, [[8]], [True], [8, 16], {"8": 8}],
    "mean": [None, [0.5], [0.5] * 4, ["a", 1, 2], [1e300] * 3, 0.5, [None] * 3, [True] * 3, [0.0] * 3],
    "std": [[0, 0, 0], [-1, 1, 1], [1e-300] * 3, [1e300] * 3, "0.5", [10**400] * 3, [1.0] * 3, []],
    "classes": [None, {}, [], {"street": 1}, {"street": -5}, {"street": BIG}, {"street": "5"}, {"street": 5.0},
                {"street": True}, {"street": 6}, {"room": 5}, {"street": 5, "room": 4}, {"a.b": 5}, {"": 5},
                {str(i): 5 for i in range(100_000)}, {"street": 10**5000 // 10**900}],
    "context": [None, "", "pspp", 3, ["psp"], "psp", "aspp", "fpn"],
    "context_channels": [None, 0, -1, BIG, 10**30, 16.0, "16", 17],
    "context_rates": [[0], [BIG], "12", [1.5], [-1], [[12]], [12] * 100_000],
    "context_width": [0, -1, BIG, "64", 1.5],
    "decoder": [None, "", "linearr", 7, "linear", "deeplabv3plus"],
    "last_relu": [None, 0, 1, "false", True],
    "norm": [None, "", "bacth", 1, ["batch"]],
    "surprise": [1, None],
}  # fmt: skip
CASES = [(name, number) for name, values in VALUES.items() for number in range(len(values))]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_setting_of_another_type_or_size_is_refused(copied: Path, name: str, number: int) -> None:
    path = copied / "config.json"
    config = json.loads(path.read_text())
    config["model"][name] = VALUES[name][number]
    path.write_text(json.dumps(config))
    refused(lambda: from_pretrained(copied), str(copied))


def valid(saved: Path) -> dict[str, Any]:
    return json.loads((saved / "config.json").read_text())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe{}",
        b"[1]",
        b"null",
        b'"' + b"a" * 17_000_000 + b'"',
        b"[" * 100_000,
        b'{"format": ' * 50_000,
        b'{"format": "semiseg-segmenter/1", "model": ' + b'{"a":' * 100_000,
        b'{"format": "semiseg-segmenter/1", "model": {"output_stride": ' + b"1" * 5_000 + b"}}",
        b'{"format": "semiseg-segmenter/1", "model": {"mean": [NaN, Infinity, 0]}}',
        b'{"format": "semiseg-segmenter/1", "model": []}',
        b'{"format": ["semiseg-segmenter/1"], "model": {}}',
        b'{"format": "semiseg-segmenter/9", "model": {}}',
        b'{"format": "\\u001b[2J\\u202e", "model": {}}',
        b'{"format": "semiseg-segmenter/1", "model": {}, "metadata": [1]}',
    ],
    ids=range(15),
)
def test_a_config_that_is_no_config_is_refused(copied: Path, text: bytes) -> None:
    (copied / "config.json").write_bytes(text)
    refused(lambda: from_pretrained(copied), str(copied / "config.json"))
    network = create_segmenter(encoder=NAME, classes={"street": 5}, context="none", context_channels=16, weights="none")
    if b"model" in text:
        refused(lambda: load_encoder(network, copied), str(copied / "config.json"))


@pytest.mark.parametrize("name", ["encoder", "classes", "mean", "norm", "decoder", "context_channels"])
def test_a_missing_setting_is_named(copied: Path, name: str) -> None:
    config = valid(copied)
    del config["model"][name]
    (copied / "config.json").write_text(json.dumps(config))
    refused(lambda: from_pretrained(copied), f"model.{name} is missing")


def test_settings_that_change_no_shape_are_compared_with_those_of_the_weights(copied: Path) -> None:
    """Without that, the model would load and predict something else."""
    for name, value in (("output_stride", 16), ("mean", [0.1, 0.2, 0.3]), ("std", [1, 1, 1]), ("last_relu", True)):
        config = valid(copied)
        before, config["model"][name] = config["model"][name], value
        (copied / "config.json").write_text(json.dumps(config))
        refused(lambda: from_pretrained(copied), "config.json")
        config["model"][name] = before
        (copied / "config.json").write_text(json.dumps(config))
    model, x = from_pretrained(copied), torch.rand(1, 3, 40, 48)
    strip(copied)  # as weights were written before they had a copy
    assert torch.equal(from_pretrained(copied)(x), model(x))


def strip(folder: Path) -> None:
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata={"format": "pt"})


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    tensors: dict[str, Any] = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


WEIGHT = "encoder.body.conv_stem.weight"
EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "is missing": lambda t: t.pop(WEIGHT),
    "surprise is unknown": lambda t: t.update(surprise=torch.zeros(1)),
    "expected [16, 3, 3, 3]": lambda t: t.update({WEIGHT: t[WEIGHT].transpose(0, 1).contiguous()}),
    "is int64, expected float32": lambda t: t.update({WEIGHT: t[WEIGHT].long()}),
    "is bool, expected float32": lambda t: t.update({WEIGHT: t[WEIGHT] > 0}),
    "1 of 432 numbers of encoder.body.conv_stem.weight are NaN": lambda t: t[WEIGHT].view(-1)[7].fill_(float("nan")),
    "432 of 432 numbers": lambda t: t.update({WEIGHT: torch.full_like(t[WEIGHT], 1e300, dtype=torch.float64)}),
    "NaN or infinite": lambda t: t["decoders.street.project.weight"].fill_(-float("inf")),
    "variances below 0": lambda t: t["encoder.body.bn1.running_var"].sub_(9),
    "is float32, expected int64": lambda t: t.update({"encoder.body.bn1.num_batches_tracked": torch.tensor(0.5)}),
    "has decoders of none": lambda t: [t.pop(name) for name in list(t) if name.startswith("decoders.")],
    "decoders of room, street": lambda t: t.update({"decoders.room.project.weight": torch.zeros(1)}),
}


@pytest.mark.parametrize("words", EDITS)
def test_tensors_that_do_not_fit_are_refused(copied: Path, words: str) -> None:
    edited(copied, EDITS[words])
    refused(lambda: from_pretrained(copied), words, str(copied))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_converted(copied: Path, dtype: torch.dtype) -> None:
    before = load_file(copied / "model.safetensors")[WEIGHT]
    edited(copied, lambda t: t.update({WEIGHT: t[WEIGHT].to(dtype)}))
    assert torch.equal(from_pretrained(copied).state_dict()[WEIGHT], before.to(dtype).float())


def header(content: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FILES: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x08",
    "length": struct.pack("<Q", 2**63) + b"{}",
    "negative": struct.pack("<q", -1) + b"{}",
    "text": struct.pack("<Q", 8) + b"not json",
    "deep": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "overlap": header({"a": F32, "b": F32}, bytes(8)),
    "hole": header({"a": F32, "b": {**F32, "data_offsets": [16, 24]}}, bytes(24)),
    "beyond": header({"a": {**F32, "data_offsets": [0, 10**12], "shape": [25 * 10**10]}}, bytes(8)),
    "backward": header({"a": {**F32, "data_offsets": [8, 0]}}, bytes(8)),
    "shape": header({"a": {**F32, "shape": [2**40, 2**40]}}, bytes(8)),
    "signs": header({"a": {**F32, "shape": [-2]}}, bytes(8)),
    "dtype": header({"a": {**F32, "dtype": "OBJECT"}}, bytes(8)),
    "names": header({f"t{i}\x1b[2J": {**F32, "shape": [0], "data_offsets": [0, 0]} for i in range(5000)}),
    "metadata": header({"__metadata__": {"semiseg": "[" * 100_000}, "a": F32}, bytes(8)),
}


@pytest.mark.parametrize("name", FILES)
def test_lying_headers_are_refused(copied: Path, name: str) -> None:
    (copied / "model.safetensors").write_bytes(FILES[name])
    refused(lambda: from_pretrained(copied), str(copied))


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999999])
def test_truncated_weights_are_refused(copied: Path, share: float) -> None:
    content = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(content[: int(len(content) * share)])
    refused(lambda: from_pretrained(copied), "model.safetensors: not a safetensors file")


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.victim,)


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def pth_files(folder: Path) -> dict[str, Callable[[Path], Any]]:
    network = create_segmenter(encoder=NAME, classes={"a": 2}, context="none", context_channels=16, weights="none")
    fits: dict[str, Any] = dict(network.encoder.body.state_dict())
    first = next(iter(fits))

    def bomb(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
            archive.writestr("archive/version", b"3")
            archive.writestr("archive/data/0", bytes(200_000_000))

    return {
        "integers": lambda path: torch.save(dict(enumerate(fits.values())), path),
        "evil": lambda path: torch.save({"state_dict": Evil(folder / "victim")}, path),
        "evil_old": lambda path: torch.save(Evil(folder / "victim"), path, _use_new_zipfile_serialization=False),
        "bomb": bomb,
        "int64": lambda path: torch.save({**fits, first: fits[first].long()}, path),
        "complex": lambda path: torch.save({**fits, first: fits[first].to(torch.complex64)}, path),
        "sparse": lambda path: torch.save({**fits, first: fits[first].to_sparse()}, path),
        "meta": lambda path: torch.save({**fits, first: fits[first].to("meta")}, path),
        "huge": lambda path: torch.save({**fits, first: torch.zeros(1).expand(10**12)}, path),
        "nan": lambda path: torch.save({**fits, first: fits[first] * float("nan")}, path),
        "numbers": lambda path: torch.save([1, 2], path),
        "nothing": lambda path: torch.save({}, path),
        "text": lambda path: path.write_text("import os"),
        "empty": lambda path: path.write_bytes(b""),
        "half": lambda path: (torch.save(fits, path), path.write_bytes(path.read_bytes()[:50_000])),
        "folder": lambda path: path.mkdir(),
        "zip": lambda path: zipfile.ZipFile(path, "w").close(),
    }


@pytest.mark.parametrize("name", ["integers", "evil", "evil_old", "bomb", "int64", "complex", "sparse", "meta", "huge", "nan",
                                  "numbers", "nothing", "text", "empty", "half", "folder", "zip"])  # fmt: skip
def test_pickled_weights_are_refused_and_run_nothing(tmp_path: Path, name: str) -> None:
    path, victim = tmp_path / "weights.pth", tmp_path / "victim"
    pth_files(tmp_path)[name](path)
    network = create_segmenter(encoder=NAME, classes={"a": 2}, context="none", context_channels=16, weights="none")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    refused(lambda: load_encoder(network, path), str(path))
    assert not victim.exists()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items()), "nothing half-loaded"


@pytest.mark.parametrize(
    "place", ["", "a" * 5000, "~nobody-here/x", "a\0b", "http://127.0.0.1:9/model", "../../victim", "/", "a\x1b[2J/b c"]
)
def test_places_that_hold_no_model_are_refused(place: str) -> None:
    refused(lambda: from_pretrained(place), "path" if len(place) > 400 else "")


def test_copies_of_checkpoints_are_no_checkpoints(saved: Path, tmp_path: Path) -> None:
    for name in ("step-00000010", "step-00000009", "step-backup", "step-00000020.old"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "model.safetensors"):
            (tmp_path / name / file).write_bytes((saved / file).read_bytes())
        config = valid(saved)
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "metadata": {"from": name}}))
    assert from_pretrained(tmp_path).metadata == {"from": "step-00000010"}


TAXONOMY = {"name": "street-5", "names": list("abcde"), "colours": [[i, 0, 255] for i in range(5)]}
METADATA: list[dict[str, Any]] = [
    {},
    {"taxonomies": None},
    {"taxonomies": []},
    {"taxonomies": {"room": TAXONOMY}},
    {"taxonomies": {"street": None}},
    {"taxonomies": {"street": {**TAXONOMY, "names": list("abcd")}}},
    {"taxonomies": {"street": {**TAXONOMY, "names": list("abcda")}}},
    {"taxonomies": {"street": {**TAXONOMY, "names": "abcde"}}},
    {"taxonomies": {"street": {**TAXONOMY, "names": [1, 2, 3, 4, 5]}}},
    {"taxonomies": {"street": {**TAXONOMY, "names": [*"abcd", ""]}}},
    {"taxonomies": {"street": {**TAXONOMY, "colours": [[0, 0, 256]] * 5}}},
    {"taxonomies": {"street": {**TAXONOMY, "colours": [[0, 0, -1]] * 5}}},
    {"taxonomies": {"street": {**TAXONOMY, "colours": [[0, 0]] * 5}}},
    {"taxonomies": {"street": {**TAXONOMY, "colours": [[0, 0, 0.5]] * 5}}},
    {"taxonomies": {"street": {**TAXONOMY, "colours": ["red"] * 5}}},
    {"taxonomies": {"street": {**TAXONOMY, "colours": []}}},
    {"taxonomies": {"street": {"name": "street-5", "names": list("abcde")}}},
    {"taxonomies": {"street": {**TAXONOMY, "name": 5}}},
    {"taxonomies": {"street": TAXONOMY}, "resize": [1, 2]},
    {"taxonomies": {"street": TAXONOMY}, "resize": {"street": [0, 64]}},
    {"taxonomies": {"street": TAXONOMY}, "resize": {"street": [BIG, BIG]}},
    {"taxonomies": {"street": TAXONOMY}, "resize": {"street": "64x48"}},
    {"taxonomies": {"street": TAXONOMY}, "views": [1]},
    {"taxonomies": {"street": TAXONOMY}, "views": {"scales": [1e300]}},
    {"taxonomies": {"street": TAXONOMY}, "views": {"scales": []}},
    {"taxonomies": {"street": TAXONOMY}, "views": {"scales": 1.0}},
    {"taxonomies": {"street": TAXONOMY}, "views": {"scales": [1.0], "flip": "yes"}},
    {"taxonomies": {"street": TAXONOMY}, "views": {"tile": [1, 1]}},
    {"taxonomies": {"street": TAXONOMY}, "views": {"tile": [BIG, BIG]}},
    {"taxonomies": {"street": TAXONOMY}, "views": {"tile": [64, 64], "overlap": 1.0}},
    {"taxonomies": {"street": TAXONOMY}, "views": {"scales": [1.0], "surprise\u001b[2J": 1}},
    {"taxonomies": {"street": TAXONOMY}, "views": {"scales": json.loads("[" * 300 + "]" * 300)}},
]


@pytest.mark.parametrize("number", range(len(METADATA)))
def test_a_description_that_does_not_fit_the_model_is_refused(copied: Path, number: int) -> None:
    config = {**valid(copied), "metadata": METADATA[number]}
    (copied / "config.json").write_text(json.dumps(config))
    start = time.monotonic()
    with pytest.raises(SemisegError) as caught:
        open_model(str(copied))
    assert time.monotonic() - start < SECONDS
    message = str(caught.value)
    assert str(copied) in message and message.isprintable() and len(message) < 1500


def test_a_description_that_fits_is_taken(copied: Path) -> None:
    views = {"scales": [0.5, 1.0], "flip": True, "tile": [64, 48], "overlap": 0.25}
    taxonomies = {"street": TAXONOMY, "room": {**TAXONOMY, "names": ["x", "y"]}}
    metadata = {"taxonomies": taxonomies, "resize": {"street": None}, "views": views, "own": [1]}
    (copied / "config.json").write_text(json.dumps({**valid(copied), "metadata": metadata}))
    model, opened = open_model(str(copied))
    assert opened["street"].names == tuple("abcde")
    assert views_of(None, model.metadata) == Views(scales=(0.5, 1.0), flip=True, tile=(64, 48), overlap=0.25)

"""`semiseg data ...` as a user types it, on a data set package that is installed for the test."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from semiseg.data import DataError, ShardSet, registry, shard
from semiseg.data.commands import app

SNAPS = """
    import time
    from functools import partial
    from pathlib import Path

    from semiseg.data import DataError, RawSample, RawSpace, Split, Taxonomy

    RAW = RawSpace(name="snaps-raw", names={0: "ground", 1: "thing", 255: "void"})

    def read(path, delay):
        time.sleep(delay)
        return path.read_bytes()

    class Snaps:
        name, summary, home, version = "snaps", "snapshots of things", "https://example.org", "v1"
        raw_space = RAW
        taxonomies = (
            Taxonomy(name="snaps-2", raw=RAW, names=("ground", "thing"), colours=((10, 200, 30), (250, 20, 60)),
                     ids={0: 0, 1: 1}, foreground=frozenset({1})),
            Taxonomy(name="snaps-1", raw=RAW, names=("thing",), colours=((1, 2, 3),), ids={1: 0}, foreground=frozenset()),
        )

        def __init__(self, root=None, *, delay=0.0, turned=False, by=None):
            self.root, self.delay = root, delay
            self.version = "v1" if by is None else f"turned {turned!r} by {by!r}"
            if root is None or not root.is_dir():
                raise DataError(f"found no snaps at {root}")

        def splits(self):
            found = {}
            for name, labeled, default in (("train", True, True), ("val", True, True), ("extra", False, False)):
                count = len(list(self.root.glob(f"{name}/*.png")))
                missing = None if count else f"{self.root / name} is not there"
                found[name] = Split(name=name, samples=count, labeled=labeled, default=default, missing=missing,
                                    expected=9 if name == "train" else None)
            return found

        def samples(self, split):
            for path in sorted(self.root.glob(f"{split}/*.png")):
                label = self.root / "labels" / path.name
                yield RawSample(key=path.stem, image=partial(read, path, self.delay), size=path.stat().st_size,
                                label=None if split == "extra" else partial(read, label, self.delay))
"""


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """A distribution with the data set "snaps", and nothing of the machine's environment."""
    site = tmp_path / "site"
    info = site / "snaps-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "snaps_data.py").write_text(textwrap.dedent(SNAPS))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: snaps\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[semiseg.datasets]\nsnaps = snaps_data:Snaps\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.chdir(tmp_path)
    forget()
    yield
    forget()


def forget() -> None:
    registry.announced.cache_clear()
    registry.load.cache_clear()


@pytest.fixture
def files(tmp_path) -> Path:
    """The publisher's files: 7 images in train, none in val, 2 without labels in extra."""
    random = np.random.default_rng(0)
    for name in ("train", "extra", "labels"):
        (tmp_path / "files" / name).mkdir(parents=True)
    for i in range(9):
        name = f"s{i}.png"
        image = random.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "files" / ("train" if i < 7 else "extra") / name)
        if i < 7:
            label = np.zeros((20, 30), np.uint8)
            label[: i + 1], label[-1] = 1, 255
            Image.fromarray(label).save(tmp_path / "files" / "labels" / name)
    return tmp_path / "files"


def run(*words: object, fails: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == fails, result.output
    return result


@pytest.fixture
def written(files) -> Path:
    run("shard", "snaps", files, "--shard-size", "4KB", "--workers", 1)
    return Path("shards/snaps/train")


def test_shard_reports_what_it_finds_and_writes_and_the_next_command(files):
    output = run("shard", "snaps", files, "--shard-size", "4KB", "--workers", 2).stdout
    assert f"snaps (v1) at {files}\n" in output
    assert "  train  7 samples, labeled (the publisher has 9)\n" in output
    assert f"  val    missing: {files / 'val'} is not there\n" in output
    assert "  extra  2 samples, unlabeled; only with --split extra\n" in output
    assert re.search(r"needs about [\d.]+ kB; .* are free under .*; takes about 1 s with 2 processes\n", output)
    assert re.search(r"shards/snaps/train: 7 samples in 4 shards, [\d.]+ kB\n", output)
    assert output.splitlines()[-1] == "next: semiseg data show snaps --split train --shards shards/"
    assert len(ShardSet("shards/snaps/train")) == 7
    assert not Path("shards/snaps/extra").exists()


def test_a_second_call_does_nothing_and_says_so(files, written):
    before = {path: path.stat().st_mtime_ns for path in written.iterdir()}
    output = run("shard", "snaps", files, "--shard-size", "4KB").stdout
    assert "shards/snaps/train: already complete, 7 samples" in output
    assert "needs about" not in output
    assert {path: path.stat().st_mtime_ns for path in written.iterdir()} == before


def test_asked_for_splits(files):
    output = run("shard", "snaps", files, "--split", "extra", "--split", "train", "--to", "elsewhere").stdout
    assert "elsewhere/snaps/extra: 2 samples in 1 shard" in output and "elsewhere/snaps/train: 7" in output
    with pytest.raises(DataError, match=r"snaps/val: .*val is not there"):
        run("shard", "snaps", files, "--split", "val")
    with pytest.raises(DataError, match="unknown split 'tran'; did you mean 'train'"):
        run("shard", "snaps", files, "--split", "tran")


def test_every_mistake_has_one_error(files, written, tmp_path):
    with pytest.raises(DataError, match="unknown data set 'snap'; did you mean 'snaps'"):
        run("shard", "snap")
    with pytest.raises(DataError, match="unknown option 'dely'; did you mean 'delay'"):
        run("shard", "snaps", files, "--option", "dely=1")
    with pytest.raises(DataError, match="found no snaps"):
        run("shard", "snaps", tmp_path / "nowhere")
    with pytest.raises(DataError, match="size of shards: 4,000 bytes there, 5,000 bytes now"):
        run("shard", "snaps", files, "--shard-size", "5KB")
    with pytest.raises(DataError, match="invalid shard size 'big'"):
        run("shard", "snaps", files, "--shard-size", "big")
    with pytest.raises(DataError, match=r"invalid image size '256MB'; .* the size of shards is --shard-size"):
        run("shard", "snaps", files, "--size", "256MB")
    with pytest.raises(DataError, match="unknown image format 'jpg'; did you mean 'jpeg'"):
        run("shard", "snaps", files, "--format", "jpg")
    with pytest.raises(
        DataError, match="size of images: kept there, 10x8 now\n  format of images: kept there, jpeg now"
    ):
        run("shard", "snaps", files, "--shard-size", "4KB", "--size", "10x8", "--format", "jpeg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no split is available; .*https://example\.org"):
        run("shard", "snaps", tmp_path / "empty")
    run("shard", "snaps", files, "--option", "delay", fails=2)
    run("shard", "snaps", files, "--workers", 0, fails=2)
    run("shard", "snaps", files, "--nope", fails=2)
    run("shard", fails=2)


@pytest.mark.parametrize(
    ("word", "value"),
    [("False", False), ("false", False), ("FALSE", False), ('"false"', False), ("True", True), ("true", True)],
)
def test_an_option_that_is_true_or_false_is_read_in_any_case(files, word, value):
    output = run("shard", "snaps", files, "--option", f"turned={word}", "--option", "by=False").stdout
    assert f"snaps (turned {value!r} by 'False')" in output, "an option that is text stays text"


@pytest.mark.parametrize("word", ["no", "0", "1", "", "Flase"])
def test_an_option_that_is_neither_true_nor_false_is_refused(files, word):
    with pytest.raises(DataError, match=f"data set 'snaps': option turned={word}: expected true or false$"):
        run("shard", "snaps", files, "--option", f"turned={word}")


def test_a_disk_without_room_is_refused_before_writing(files, small_disk):
    (small_disk / "filler").write_bytes(bytes(580_000))
    with pytest.raises(DataError, match=r"about [\d.]+ kB are needed, [\d.]+ kB are free; free some"):
        run("shard", "snaps", files, "--to", small_disk)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_says_how_to_continue(files, workers):
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background job ignores it
    code = f"{heard}; from semiseg.data.commands import app; app()"
    words = ["shard", "snaps", str(files), "--shard-size", "4KB", "--workers", str(workers), "--option", "delay=0.15"]
    command = [sys.executable, "-c", code, *words]
    Path("torch.py").write_text("raise ModuleNotFoundError")  # webdataset would import it: 2 s each
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])}
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    tar = Path("shards/snaps/train/000000.index.parquet")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not tar.exists():
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGINT)  # to all processes, as a terminal does
    _, output = started.communicate(timeout=60)
    assert started.returncode == 130, output
    assert output.splitlines()[-1] == "stopped; finished shards are kept; rerun the command to resume"
    assert "Traceback" not in output
    assert not [path for path in tar.parent.iterdir() if path.name.endswith(".tmp")]
    assert "train: 7 samples in 4 shards" in run("shard", "snaps", files, "--shard-size", "4KB").stdout


def test_verify_names_damage_and_fails(written):
    assert run("verify", "snaps").stdout.startswith("shards/snaps/train: 7 samples")
    assert ": ok" in run("verify", written, "--workers", "1").stdout
    assert "share 2/2: 2 shards, 3 samples, " in run("verify", written, "--share", "2/2").stdout
    with pytest.raises(DataError, match="invalid share 'half'; write i/n"):
        run("verify", written, "--share", "half")
    tar = written / "000001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    output = run("verify", "snaps", "--split", "train", fails=1).stdout
    assert "000001.tar: 's2' image at offset 512: has crc32" in output
    assert output.count("remedy: ") == 1
    found = json.loads(run("verify", written.parent, "--json", fails=1).stdout)
    assert [report["ok"] for report in found] == [False]
    assert found[0]["problems"][0]["key"] == "s2"
    assert found[0]["problems"][0]["shard"] == "000001.tar"


def test_stats_prints_sizes_tags_and_labels(adapt, draw, tmp_path):
    shapes = [(9, 12), (11, 17), (20, 10), (5, 6), (8, 8), (7, 9), (30, 40)]
    samples = [
        replace(draw(7, height=h, width=w)[i], tags=("car",) * (i % 2) + ("wet", "dark") * (i > 4))
        for i, (h, w) in enumerate(shapes)
    ]
    shard(adapt(samples), "train", tmp_path)
    folder = tmp_path / "pictures" / "train"
    facts = json.loads(run("stats", folder, "--json").stdout)[0]
    assert facts["labeled"] is True
    assert facts["size"] == {"min": "6x5", "median": "12x9", "max": "40x30"}  # areas 30 63 64 [108] 187 200 1200
    assert list(facts["tags"].items()) == [("car", 3), ("dark", 2), ("wet", 2)]
    output = run("stats", folder).stdout
    assert "7 samples, labeled, in 1 shard" in output
    assert "pixels: 6x5 to 40x30, median 12x9 (7 sizes)" in output
    assert "tags: car 3, dark 2, wet 2" in output


def test_stats_agrees_with_a_loop(written, files):
    things = [30 * (i + 1) for i in range(7)]
    total, void = 7 * 600, 7 * 30
    facts = json.loads(run("stats", "snaps", "--json").stdout)[0]
    assert facts["sizes"] == {"30x20": 7} and facts["pixels"] == total and facts["samples"] == 7
    assert facts["void"] == pytest.approx(void / total)
    ground, thing = facts["classes"]
    assert (ground["pixels"], ground["images"]) == (total - void - sum(things), 7)
    assert (thing["name"], thing["pixels"], thing["share"]) == (
        "thing",
        sum(things),
        pytest.approx(sum(things) / total),
    )
    output = run("stats", written).stdout
    assert re.search(rf"thing +│ +{sum(things) / total:.2%} +│ +7", output)
    assert re.search(rf"void +│ +{void / total:.2%}", output)
    other = json.loads(run("stats", "snaps", "--taxonomy", "snaps-1", "--json").stdout)[0]
    assert [row["name"] for row in other["classes"]] == ["thing"]
    run("shard", "snaps", files, "--split", "extra")
    assert "classes" not in json.loads(run("stats", "snaps", "--split", "extra", "--json").stdout)[0]


def test_show_draws_labels_over_images(written):
    output = run("show", "snaps", "--count", 3, "--out", "sheet.png").stdout
    assert output == "sheet.png: 3 of 7 samples of shards/snaps/train\n"
    with Image.open("sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    for colour in ((10, 200, 30), (250, 20, 60)):
        assert (pixels == colour).all(1).sum() > 500, "each class is painted in its colour"
    first = Path("sheet.png").read_bytes()
    run("show", written, "--count", 3, "--out", "sheet.png")
    assert Path("sheet.png").read_bytes() == first, "the same seed draws the same samples"
    run("show", written, "--count", 3, "--seed", 1, "--out", "sheet.png")
    assert Path("sheet.png").read_bytes() != first


def test_show_takes_keys_and_images_without_labels(files, written):
    assert run("show", "snaps", "--keys", "s5,s0").stdout.startswith("snaps-train.png: 2 of 7 samples")
    with pytest.raises(DataError, match="s77"):
        run("show", "snaps", "--keys", "s0,s77")
    run("shard", "snaps", files, "--split", "extra")
    assert run("show", "snaps", "--split", "extra").stdout.startswith("snaps-extra.png: 2 of 2 samples")
    with pytest.raises(DataError, match=r"several splits \(extra, train\); choose one with --split"):
        run("show", "snaps", "--out", "x.png")
    with pytest.raises(DataError, match="unknown taxonomy 'snaps-3'"):
        run("show", "snaps", "--split", "train", "--taxonomy", "snaps-3")


def test_targets_that_are_not_there(written):
    with pytest.raises(
        DataError, match=r"no shards at shards/snips .*did you mean 'snaps'.*semiseg data shard snips --to shards"
    ):
        run("stats", "snips")
    with pytest.raises(DataError, match=r"no shards of split 'vall'.*written: train"):
        run("stats", "snaps", "--split", "vall")
    with pytest.raises(
        DataError, match="no shards at elsewhere/snaps; write them with: semiseg data shard snaps --to elsewhere"
    ):
        run("stats", "snaps", "--shards", "elsewhere")
    (written / "manifest.json").rename(written / "plan.json")
    with pytest.raises(DataError, match="was interrupted; rerun the command to resume"):
        run("stats", "snaps")
    assert "writing was interrupted" in run("list").stdout


def test_list_shows_installed_and_written_data_sets(files):
    output = run("list").stdout
    assert "snaps: snapshots of things\n" in output
    assert "taxonomies  snaps-2 (2 classes), snaps-1 (1 class" in output
    assert "none under shards/; write them with: semiseg data shard snaps" in output
    run("shard", "snaps", files)
    assert re.search(r"shards      train: 7 samples, [\d.]+ kB", run("list").stdout)
    found = {dataset["name"]: dataset for dataset in json.loads(run("list", "--json").stdout)["datasets"]}
    assert found["snaps"]["shards"]["train"]["digest"] == ShardSet("shards/snaps/train").digest
    assert found["snaps"]["taxonomies"] == {"snaps-2": 2, "snaps-1": 1}
    Path("shards/snaps").rename("shards/gone")
    output = run("list").stdout
    assert (
        "gone: not installed (your own data, or pip install semiseg-gone)\n  taxonomies  snaps-2 (2 classes), snaps-1"
        in output
    )


def test_output_in_a_pipe_is_plain(files):
    code = "from semiseg.data.commands import app; app()"
    command = [sys.executable, "-c", code, "shard", "snaps", str(files), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout + done.stderr
    first, *_, last = done.stderr.splitlines()  # and one every 10 s
    assert first == "writing train: started" and re.fullmatch(r"writing train: done in \d+ s", last)
    assert "\x1b" not in run("stats", "snaps").stdout


def test_the_module_imports_nothing_heavy():
    code = "import semiseg.data.commands, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "PIL", "pyarrow", "fsspec", "webdataset", "torch"}
    assert not heavy & set(done.stdout.split())


def test_a_bare_word_is_a_name_below_shards_first(files, written):
    run("shard", "snaps", files, "--split", "extra", "--to", ".")  # ./snaps holds sets too
    assert run("verify", "snaps").stdout.startswith("shards/snaps/train: 7 samples")
    assert run("verify", "./snaps").stdout.startswith("./snaps/extra: 2 samples")
    with pytest.raises(DataError, match="no shards at elsewhere/snaps"):
        run("verify", "snaps", "--shards", "elsewhere")
    Path("shards").rename("other")
    assert run("verify", "snaps").stdout.startswith("snaps/extra: 2 samples"), (
        "nothing under shards/: the current folder"
    )


def test_printed_commands_can_be_pasted(files):
    output = run("shard", "snaps", files, "--to", "my shards").stdout
    assert output.splitlines()[-1] == "next: semiseg data show snaps --split train --shards 'my shards'"
    with pytest.raises(DataError, match="semiseg data shard snips --to 'my shards'"):
        run("stats", "snips", "--shards", "my shards")
    run("shard", "snaps", files, "--to", "", fails=2)


def test_an_interrupted_set_is_resumed_with_its_settings(files):
    run("shard", "snaps", files, "--shard-size", "4KB", "--size", "10x8", "--format", "png", "--to", "to")
    folder = Path("to/snaps/train")
    (folder / "manifest.json").rename(folder / "plan.json")
    command = "semiseg data shard snaps --split train --to to --shard-size 4000 --size 10x8 --format png"
    with pytest.raises(DataError, match=command):
        run("stats", "to/snaps/train")
    output = run("verify", "to/snaps/train", fails=1).stdout
    assert ": 1 problem\n" in output
    assert f"remedy: rerun the command to resume: {command}" in output
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan | {"dataset": "roofs"}))
    with pytest.raises(DataError, match=r"rerun the command that wrote it to resume$"):
        run("stats", "to/snaps/train")


def test_places_that_cannot_be_written_are_named_before_the_work(files, written, tmp_path):
    (tmp_path / "afile").write_text("x")
    with pytest.raises(DataError, match=r"afile/snaps/train: cannot be written \(Not a directory\)"):
        run("shard", "snaps", files, "--to", "afile")
    with pytest.raises(DataError, match="the folder does not exist; create it"):
        run("show", "snaps", "--out", tmp_path / "nope" / "x.png")


def test_parts_are_written_and_merged(files):
    words = ("snaps", files, "--shard-size", "4KB", "--to", "to")
    output = run("shard", *words, "--part", "2/3").stdout
    assert re.search(r"to/snaps/train: train, part 2/3: 1 of 4 shards, 2 samples, [\d.]+ kB\n", output)
    assert output.splitlines()[-1] == "when all parts are written: semiseg data merge to/snaps/train"
    with pytest.raises(DataError, match=r"part 1/3 \(not started, or failed\): shard 0 missing: semiseg data"):
        run("merge", "snaps", "--shards", "to")
    assert "some parts are written" in run("list", "--shards", "to").stdout
    for part in ("1/3", "3/3"):
        run("shard", *words, "--part", part)
    output = run("merge", "to/snaps/train").stdout
    assert re.fullmatch(r"to/snaps/train: 7 samples in 4 shards, [\d.]+ kB; digest [0-9a-f]{12}\n", output)
    assert run("merge", "snaps", "--split", "train", "--shards", "to").stdout == output
    run("shard", "snaps", files, "--shard-size", "4KB", "--to", "one")
    one, merged = (
        {path.name: path.read_bytes() for path in Path(folder, "snaps/train").iterdir()} for folder in ("one", "to")
    )
    assert merged == one
    with pytest.raises(DataError, match="parts count from 1 to 3"):
        run("shard", *words, "--part", "0/3")

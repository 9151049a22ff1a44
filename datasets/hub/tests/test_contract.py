"""The adapter contract on real CamVid files in every form that the library supports."""

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from semiseg.data.testing import AdapterContract
from semiseg.datasets.hub import Hub

NAMES = [
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
    "void",
]


def write_disk(pairs: list[tuple[Path, Path]], folder: Path) -> dict[str, Any]:
    from datasets import DatasetDict

    DatasetDict({"train": table(pairs[:6]), "validation": table(pairs[6:])}).save_to_disk(folder)
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate(NAMES))))
    return {}


def write_parquet(pairs: list[tuple[Path, Path]], folder: Path) -> dict[str, Any]:
    (folder / "data").mkdir(parents=True)
    table(pairs[:6]).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    table(pairs[6:]).to_parquet(folder / "data" / "validation-00000-of-00001.parquet")
    return {}


def write_imagefolder(pairs: list[tuple[Path, Path]], folder: Path) -> dict[str, Any]:
    for name, part in (("train", pairs[:6]), ("validation", pairs[6:])):
        lines = ["file_name,mask_file_name"]
        (folder / name / "masks").mkdir(parents=True)
        for image, mask in part:
            shutil.copy(image, folder / name / image.name)
            shutil.copy(mask, folder / name / "masks" / mask.name)
            lines.append(f"{image.name},masks/{mask.name}")
        (folder / name / "metadata.csv").write_text("\n".join(lines) + "\n")
    return {}


def write_for_streaming(pairs: list[tuple[Path, Path]], folder: Path) -> dict[str, Any]:
    write_parquet(pairs, folder)
    return {"streaming": True}


def table(pairs: list[tuple[Path, Path]]) -> Any:
    from datasets import Dataset, Features, Image

    files = [[{"bytes": path.read_bytes(), "path": path.name} for path in pair] for pair in pairs]
    columns = {"image": [image for image, _ in files], "label": [mask for _, mask in files]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "label": Image()}))


# The library leaves a metadata.csv open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("write", [write_disk, write_parquet, write_imagefolder, write_for_streaming])
class TestHub(AdapterContract):
    limit = 4

    @pytest.fixture
    def adapter(self, camvid_pairs: list[tuple[Path, Path]], tmp_path: Path, write: Any) -> Hub:
        found = Hub(tmp_path / "some set", **write(camvid_pairs, tmp_path / "some set"))
        gc.collect()  # here, not in another test
        return found

    def test_the_real_files_are_unchanged(
        self, adapter: Hub, camvid_pairs: list[tuple[Path, Path]], write: Any
    ) -> None:
        assert adapter.name == "some-set"
        assert {name: (s.samples, s.labeled) for name, s in adapter.splits().items()} == {
            "train": (6, True),
            "validation": (4, True),
        }
        samples = [*adapter.samples("train"), *adapter.samples("validation")]
        assert [sample.key for sample in samples] == [image.stem for image, _ in camvid_pairs]
        for sample, (image, mask) in zip(samples, camvid_pairs, strict=True):
            assert callable(sample.image) and callable(sample.label)
            assert sample.image() == image.read_bytes()
            assert sample.label() == mask.read_bytes()
            assert sample.size == image.stat().st_size + mask.stat().st_size
            assert sample.meta["source"] == image.name
        names = dict(enumerate(NAMES)) if write is write_disk else {i: f"class {i}" for i in range(12)}
        assert adapter.raw_space.names == {**names, 255: "void"}
        assert adapter.taxonomies[0].name == ("some-set-11" if write is write_disk else "some-set-12")

"""The real command on a folder of hostile names: no program is started, and nothing is written outside of the target."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

PROGRAMS = (
    "gs",
    "gswin64c",
    "unzip",
    "tar",
    "gzip",
    "curl",
    "wget",
    "sh",
    "bash",
    "id",
    "touch",
    "open",
    "xdg-open",
    "git",
)
NAMES = (
    "$(touch mark)", "`touch mark`", "; touch mark ;", "| touch mark", "-o mark", "--help", "a\nb", "a\x1b[2Jb", "file:x",
    "http:__127.0.0.1", "%2e%2e", "~", "a::b", "\u202egnp", "a'b\"c", "&& id", "CON", "a" * 200,
)  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="such names do not exist on Windows")
def test_sharding_hostile_names_starts_no_program(tmp_path):
    fakes, work, data = tmp_path / "bin", tmp_path / "work", tmp_path / "work" / "data"
    fakes.mkdir()
    marks = tmp_path / "marks"
    for program in PROGRAMS:
        (fakes / program).write_text(f"#!/bin/sh\necho {program} >> {marks}\nexit 1\n")
        (fakes / program).chmod(0o755)
    assert subprocess.run(["gs"], env={"PATH": str(fakes)}).returncode == 1 and marks.exists()
    marks.unlink()
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(data / "images" / f"{name}.jpg")
        Image.fromarray(random.integers(0, 2, (16, 16), np.uint8)).save(data / "masks" / f"{name}.png")
    (data / "images" / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(x) show\n%%EOF\n")
    before = set(work.rglob("*"))
    environment = {**os.environ, "PATH": str(fakes), "HOME": str(tmp_path)}

    def semiseg(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "semiseg.cli", *words]
        return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=120)

    refused = semiseg("data", "shard", "folder", "data", "--option", "name=x", "--to", "shards")
    assert refused.returncode == 1 and "page.png" in refused.stderr and "Traceback" not in refused.stderr
    (data / "images" / "page.png").unlink()
    written = semiseg("data", "shard", "folder", "data", "--option", "name=x", "--to", "shards", "--workers", "1")
    assert written.returncode == 0, written.stderr
    checked = semiseg("data", "verify", "x", "--shards", "shards")
    assert checked.returncode == 0, checked.stderr
    for done in (refused, written, checked):
        assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n")), done
    assert not marks.exists(), marks.read_text()
    assert {path for path in work.rglob("*") if "shards" not in path.parts} == before - {data / "images" / "page.png"}

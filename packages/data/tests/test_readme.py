"""The README's adapter works exactly as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

README = Path(__file__).parent.parent / "README.md"


def test_the_adapter_of_the_readme_writes_and_reads(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    script = next(block for block in blocks if "class Yards" in block)
    (tmp_path / "yards.py").write_text(script)
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "yards" / name).mkdir(parents=True)
    for i in range(3):
        Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).save(
            tmp_path / "yards" / "images" / f"y{i}.jpg"
        )
        Image.fromarray(random.choice([0, 1, 255], (12, 16)).astype(np.uint8)).save(
            tmp_path / "yards" / "masks" / f"y{i}.png"
        )
    done = subprocess.run(
        [sys.executable, "yards.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout) == (0, "3 (12, 16)\n"), done.stderr


def test_every_room_has_its_line():
    rooms = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (README.parent / "src" / "semiseg" / "data").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    listed = set(re.findall(r"^\| (`.*?`) \|", README.read_text(), re.MULTILINE))
    listed = {name for cell in listed for name in re.findall(r"`(\w+(?:\.py|/))`", cell)}
    assert listed == rooms - {"__init__.py", "errors.py"}

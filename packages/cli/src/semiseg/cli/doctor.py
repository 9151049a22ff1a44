"""`semiseg doctor`: what is installed, whether the packages fit together, and where data is looked for."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, entry_points, version
from pathlib import Path

import typer

LIBRARIES = (
    "numpy",
    "pillow",
    "pyarrow",
    "webdataset",
    "fsspec",
    "datasets",
    "torch",
    "torchvision",
    "timm",
    "accelerate",
)

# Runs in a separate process: this package must not import torch, and mismatched wheels fail when they are imported.
PROBE = """
import json, torch
found = {"cuda": torch.cuda.is_available(), "threads": torch.get_num_threads(), "bf16": False, "devices": []}
if found["cuda"]:
    found["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found["bf16"] = torch.cuda.is_bf16_supported()
try:
    import torchvision
    found["torchvision"] = "ok"
except Exception as error:
    found["torchvision"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


def doctor(as_json: bool = typer.Option(False, "--json", help="Print JSON instead of text.")) -> None:
    """List installed packages, versions and devices, and how to fix problems. Exit code 1 if there is a problem."""
    report = examine()
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)
    if report["problems"]:
        raise typer.Exit(1)


def examine() -> dict:
    """Everything that `semiseg doctor` shows, as JSON values; "problems" lists what is wrong and how to fix it."""
    problems: list[str] = []
    packages: dict[str, str] = {}
    for distribution in distributions():
        metadata = distribution.metadata
        if not metadata or "Name" not in metadata:  # only the folder's name is left
            folder = getattr(distribution, "_path", distribution.locate_file(""))
            problems.append(
                f"{folder} has no package metadata: an install or uninstall was interrupted; remove the folder, then "
                "install the package that it is named after again"
            )
        elif (name := metadata["Name"]) == "semiseg" or name.startswith("semiseg-"):
            packages[name] = distribution.version
    if len(set(packages.values())) > 1:
        wanted = packages.get("semiseg", max(packages.values()))
        odd = ", ".join(f"{name} {found}" for name, found in sorted(packages.items()) if found != wanted)
        problems.append(
            f"semiseg packages have different versions ({odd}, expected {wanted}); "
            "update all of them: pip install -U 'semiseg[all]'"
        )
    libraries = {name: _version(name) for name in LIBRARIES}
    accelerator = _probe_torch(problems) if libraries["torch"] else None
    free = shutil.disk_usage(Path.cwd()).free
    if free < 2e9:
        problems.append(
            f"only {free / 1e9:.1f} GB are free in {Path.cwd()}, where shards and checkpoints are written; free some space"
        )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": dict(sorted(packages.items())),
        "libraries": libraries,
        "torch": accelerator,
        "datasets": sorted(entry.name for entry in entry_points(group="semiseg.datasets")),
        "data_root": os.environ.get("SEMISEG_DATA"),
        "free_bytes": free,
        "problems": list(dict.fromkeys(problems)),  # a folder on the path twice gives its problems twice
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except (PackageNotFoundError, KeyError):  # KeyError: empty metadata, in later versions of Python
        return None


def _probe_torch(problems: list[str]) -> dict | None:
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if run.returncode:
        problems.append(
            f"torch cannot be imported ({_last_words(run)}); reinstall it: pip install -U torch torchvision"
        )
        return None
    found = json.loads(run.stdout)
    if found["torchvision"] != "ok":
        problems.append(
            f"torchvision does not match torch ({found['torchvision']}); "
            "install both in one command: pip install -U torch torchvision"
        )
    return found


def _last_words(run: "subprocess.CompletedProcess[str]") -> str:
    """Why a process failed: the last line that it printed, its signal, or else its exit code."""
    words = run.stderr.strip().splitlines()[-1:]
    if run.returncode < 0:
        words.insert(0, f"killed by signal {-run.returncode}, {signal.strsignal(-run.returncode)}")
    return "; ".join(words) or f"exit code {run.returncode}"


def _print(report: dict) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("Python", f"{report['python']} on {report['platform']}, {report['cpus']} CPUs")
    table.add_row("semiseg", ", ".join(f"{name} {version}" for name, version in report["packages"].items()))
    table.add_row("libraries", ", ".join(f"{name} {version or '-'}" for name, version in report["libraries"].items()))
    if report["torch"]:
        devices = ", ".join(report["torch"]["devices"]) or "CPU only"
        table.add_row("torch", f"{devices}; {report['torch']['threads']} threads")
    table.add_row("data sets", ", ".join(report["datasets"]) or "none: pip install 'semiseg[all]'")
    table.add_row("data root", report["data_root"] or "./data/<name> ($SEMISEG_DATA is not set)")
    table.add_row("free disk", f"{report['free_bytes'] / 1e9:.1f} GB in the current folder")
    console = Console(markup=False, emoji=False)  # or [all] would be markup
    console.print(table)
    for problem in report["problems"]:
        console.print(Text.assemble(("problem:", "red"), " ", problem))
    if not report["problems"]:
        console.print(Text("no problems found", "green"))

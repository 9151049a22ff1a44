"""`semiseg doctor`: what is installed here, whether it fits together, and where data would be looked for."""

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

# Runs in a process of its own: this package must not import torch, and a broken pair of wheels fails at import.
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


def doctor(as_json: bool = typer.Option(False, "--json", help="Print one JSON object.")) -> None:
    """Say what is installed, whether it fits together, and what to do about what does not."""
    report = examine()
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print(report)
    if report["problems"]:
        raise typer.Exit(1)


def examine() -> dict:
    """Everything that `semiseg doctor` shows, JSON-able; "problems" lists what needs a remedy, with it."""
    problems: list[str] = []
    own: dict[str, str] = {}
    for distribution in distributions():
        metadata = distribution.metadata
        if not metadata or "Name" not in metadata:  # nothing but a folder's name is left of it
            place = getattr(distribution, "_path", distribution.locate_file(""))
            problems.append(
                f"{place} names no package: an install or uninstall was interrupted; remove it, then install what it is "
                "named after once more"
            )
        elif (name := metadata["Name"]) == "semiseg" or name.startswith("semiseg-"):
            own[name] = distribution.version
    if len(set(own.values())) > 1:
        wanted = own.get("semiseg", max(own.values()))
        odd = ", ".join(f"{name} {has}" for name, has in sorted(own.items()) if has != wanted)
        problems.append(
            f"semiseg packages of different versions ({odd}); bring all to one: pip install -U 'semiseg[all]'"
        )
    libraries = {name: _version(name) for name in LIBRARIES}
    accelerator = _probe_torch(problems) if libraries["torch"] else None
    free = shutil.disk_usage(Path.cwd()).free
    if free < 2e9:
        problems.append(f"only {free / 1e9:.1f} GB are free in {Path.cwd()}: shards and checkpoints go there")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": dict(sorted(own.items())),
        "libraries": libraries,
        "torch": accelerator,
        "datasets": sorted(entry.name for entry in entry_points(group="semiseg.datasets")),
        "data_root": os.environ.get("SEMISEG_DATA"),
        "free_bytes": free,
        "problems": list(dict.fromkeys(problems)),  # a folder may be on the path twice
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except (PackageNotFoundError, KeyError):  # KeyError: its metadata is empty, in later Pythons
        return None


def _probe_torch(problems: list[str]) -> dict | None:
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if run.returncode:
        problems.append(f"torch does not import ({_last_words(run)}); pip install -U torch torchvision")
        return None
    found = json.loads(run.stdout)
    if found["torchvision"] != "ok":
        problems.append(
            f"torchvision does not fit torch ({found['torchvision']}); "
            "install both in one command: pip install -U torch torchvision"
        )
    return found


def _last_words(run: "subprocess.CompletedProcess[str]") -> str:
    """Why a process failed: by the last line that it wrote, or by how it ended where it wrote none."""
    told = run.stderr.strip().splitlines()[-1:]
    if run.returncode < 0:
        told.insert(0, f"killed by signal {-run.returncode}, {signal.strsignal(-run.returncode)}")
    return "; ".join(told) or f"exit code {run.returncode}"


def _print(report: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("Python", f"{report['python']} on {report['platform']}, {report['cpus']} CPUs")
    table.add_row("semiseg", ", ".join(f"{name} {has}" for name, has in report["packages"].items()))
    table.add_row("libraries", ", ".join(f"{name} {has or '-'}" for name, has in report["libraries"].items()))
    if report["torch"]:
        devices = ", ".join(report["torch"]["devices"]) or "CPU only"
        table.add_row("torch", f"{devices}; {report['torch']['threads']} threads")
    table.add_row("data sets", ", ".join(report["datasets"]) or "none: pip install 'semiseg[all]'")
    table.add_row("data root", report["data_root"] or "$SEMISEG_DATA is not set: looking in ./data/<name>")
    table.add_row("free disk", f"{report['free_bytes'] / 1e9:.1f} GB here")
    console = Console()
    console.print(table)
    for problem in report["problems"]:
        console.print(f"[red]problem:[/red] {problem}", highlight=False)
    if not report["problems"]:
        console.print("[green]no problems found[/green]")

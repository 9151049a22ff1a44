"""`accelerate launch -m semiseg.train RECIPE [key=value ...]`, and the same under torchrun or python."""

import os
import sys
from typing import TYPE_CHECKING

from semiseg.data import SemisegError

if TYPE_CHECKING:
    from semiseg.train.recipe import Recipe

USAGE = """usage: accelerate launch -m semiseg.train RECIPE [key=value ...] [--dry-run] [--allow-changes] [--extend]
       [--take-over]

Train what a recipe says (a path, or a name that `semiseg recipe ls` shows).
Rerun the same command to resume an interrupted run, on any number of processes.
key=value changes the recipe, as in seed=1 or data.domains.street.labeled.subset.count=50; key= removes the key.
--dry-run checks everything, describes what would be trained, and measures a few steps in one process.
--allow-changes resumes even though settings that affect the losses have changed; the change is recorded.
--extend trains a run for more steps than it was begun with, as in steps=300; the change is recorded.
--take-over resumes a run whose last training may still be alive on another machine.
SIGTERM, SIGHUP and Ctrl-C end training after the step, with a checkpoint (exit code 143, 129, 130)."""

DRY, ALLOW, EXTEND, TAKE_OVER = "--dry-run", "--allow-changes", "--extend", "--take-over"


def main(arguments: list[str]) -> int:
    """Exit code 0, 1 (failed), 2 (usage) or 128 plus the number of the signal that ended training."""
    try:
        return _main(arguments)
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") == "0":
            print(str(error) or "stopped; rerun the same command to resume", file=sys.stderr)
        return getattr(error, "code", 130)


def _main(arguments: list[str]) -> int:
    """Recipe and facts are checked before a process group exists."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    given, known = arguments, (ALLOW, DRY, EXTEND, "--help", "-h", TAKE_OVER)
    options = {argument for argument in arguments if argument.startswith("-")}
    arguments = [argument for argument in arguments if argument not in options]
    strange = [argument for argument in given if argument in options.difference(known)]
    if strange or not arguments or options & {"-h", "--help"}:
        if rank == 0 and strange:
            print(
                f"error: {_explained([argument for argument in given if argument not in known], known)}",
                file=sys.stderr,
            )
        elif rank == 0:
            print(USAGE)
        return 2 if strange or not options & {"-h", "--help"} else 0
    try:
        from semiseg.train.recipe.load import load
        from semiseg.train.recipe.preflight import preflight
        from semiseg.train.recipe.shipped import find

        recipe = load(find(arguments[0]), arguments[1:])
        preflight(recipe, world=world)
    except SemisegError as error:  # every rank meets it: one reports it
        if rank == 0:
            print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        if DRY in options:
            if rank == 0:
                _print_dry_run(recipe)
            return 0
        import torch

        if world > 1 and not torch.cuda.is_available():
            wanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("", "0", "false")
            if wanted and rank == 0 and "ACCELERATE_MIXED_PRECISION" in os.environ:  # set by accelerate launch
                print(
                    f"no GPU is usable here: {world} processes train on the CPU (nvidia-smi lists GPUs; `semiseg doctor` says "
                    "what torch finds)",
                    file=sys.stderr,
                )
            os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # or accelerate starts no process group on a CPU

        from semiseg.train.loop import train

        chosen = {"allow_changes": ALLOW in options, "extend": EXTEND in options, "take_over": TAKE_OVER in options}
        train(recipe, **chosen)
    except SemisegError as error:
        print(f"error{f' on rank {rank}' if world > 1 else ''}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or "the run folder"
        print(f"error: {where}: {error.strerror or error}; fix this, then rerun the command to resume", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if world > 1 and any(word in str(error) for word in ("closed by peer", "Connection reset", "Broken pipe")):
            print(f"rank {rank} stops, because another rank did", file=sys.stderr)
            return 1
        if world > 1 and any(word in str(error).lower() for word in ("timed out", "timeout")):
            print(
                f"error on rank {rank}: another rank has not answered for {recipe.timeout:g} s: its machine hangs, or its step "
                "takes longer (then raise timeout, as in timeout=3600); rerun the command to resume",
                file=sys.stderr,
            )
            return 1
        raise
    finally:
        _leave_process_group()
    return 0


def _explained(arguments: list[str], known: tuple[str, ...]) -> str:
    """What to write instead of options that do not exist."""
    from semiseg.train.recipe.advice import check_options
    from semiseg.train.recipe.problems import RecipeError

    options = tuple(option for option in known if option != "-h")
    try:
        check_options(arguments[0], arguments[1:], options)
    except RecipeError as error:
        return str(error)
    return f"unknown option '{next(a for a in arguments if a.startswith('-'))}'; options: {', '.join(options)}"


def _print_dry_run(recipe: "Recipe") -> None:
    """Describe what would be trained. Rank 0 alone calls this, as a single process: the others leave."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    from semiseg.train.dry_run import preview

    print(preview(recipe))


def _leave_process_group() -> None:
    if "torch.distributed" in sys.modules:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

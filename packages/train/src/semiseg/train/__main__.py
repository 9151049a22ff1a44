"""`accelerate launch -m semiseg.train RECIPE [key=value ...]`, and the same under torchrun or python."""

import os
import sys

from semiseg.data.errors import SemisegError

USAGE = """usage: accelerate launch -m semiseg.train RECIPE [key=value ...] [--allow-changes]

Train what a recipe says (a path, or a name that `semiseg recipe ls` shows).
The same command continues a run that was cut off, on any number of processes.
--allow-changes continues it although recipe, data or topology differ in what its losses depend on; its record tells so."""

ALLOW = "--allow-changes"


def main(arguments: list[str]) -> int:
    """Exit code 0, 1 (failed) or 2 (usage). Recipe and facts are checked before a process group exists."""
    if not set(arguments) - {ALLOW} or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    allow_changes = ALLOW in arguments
    arguments = [argument for argument in arguments if argument != ALLOW]
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    try:
        from semiseg.train.load import check_facts, load
        from semiseg.train.shipped import find

        recipe = load(find(arguments[0]), arguments[1:])
        check_facts(recipe, world=world)
    except SemisegError as error:  # every rank meets it: one tells
        if rank == 0:
            print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        import torch

        if world > 1 and not torch.cuda.is_available():
            os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # or accelerate starts no process group on a CPU

        from semiseg.train.loop import train

        train(recipe, allow_changes=allow_changes)
    except SemisegError as error:
        print(f"error{f' on rank {rank}' if world > 1 else ''}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error.filename or 'the run folder'}: {error.strerror or error}; mend it, and continue",
            file=sys.stderr,
        )
        return 1
    except RuntimeError as error:
        if world > 1 and any(word in str(error) for word in ("closed by peer", "Connection reset", "Broken pipe")):
            print(f"rank {rank} stops, because another rank did", file=sys.stderr)
            return 1
        raise
    except KeyboardInterrupt:
        if rank == 0:
            print("stopped; the same command continues from the last checkpoint", file=sys.stderr)
        return 130
    finally:
        _leave_process_group()
    return 0


def _leave_process_group() -> None:
    if "torch.distributed" in sys.modules:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

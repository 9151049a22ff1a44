"""Names that systems and programs add to a folder: never images, masks or lists of a user."""

from pathlib import PurePosixPath

_SYSTEM = frozenset({
    "__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "system volume information", "lost+found",
    "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "_gsdata_",
})  # fmt: skip


def hidden(name: str) -> bool:
    """Whether a relative path, or a folder on it, is hidden (".x", ".ipynb_checkpoints", "._x.jpg") or a system's."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in PurePosixPath(name).parts if part != "..")

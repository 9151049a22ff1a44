"""Masks that folders with usual names do not show: beside their images, or in folders with names of their own."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from semiseg.datasets.folder.file import SUFFIXES, File
from semiseg.datasets.folder.names import Affix, affixes, common_affix, core, folded, is_of_image, is_of_mask

LooksLikeMask = Callable[..., str]  # (name, related=...) -> what makes it look like a mask, or ""
_MOSTLY = 0.9  # of the pictures in a folder without a usual name, if they are taken for masks


def side_by_side(
    files: list[File], looks: LooksLikeMask | None, role: str, notes: list[str]
) -> tuple[list[File], dict[str, str]]:
    """Recognise masks in the folder of their images: "x_mask" if there is an "x", or the PNG of two files named x.

    Words that are not usual ("x_L2") count if several files have them and look like masks. If they do not, the images are
    derived from others, which are returned, too.
    """
    in_folders = any(file.role == "mask" for file in files)
    places: dict[object, list[File]] = defaultdict(list)
    for file in files:
        if file.role == "image":
            places[file.split, file.folders, file.within].append(file)
    masks: dict[str, File] = {}
    derived: dict[str, str] = {}
    unusual: list[str] = []
    for place in places.values():
        for file, base, known in _companions(place):
            related = bool(looks and looks(file.name, related=True))
            if related if (in_folders or not known) and looks else known:
                masks[file.name] = replace(file, role=role)
                unusual += [] if known else [file.name]
            elif base:
                derived[file.name] = base
        if looks is not None:
            rest = [file for file in place if file.name not in masks]
            found = {file.name: replace(file, role=role) for file in _counterparts(rest, looks)}
            masks |= found
            unusual += found
    if unusual and role == "mask":
        notes.append(
            f"{len(unusual)} pictures of few values in the folder of images are taken for masks, by their names and looks "
            f"(first {unusual[0]}); if they are images: --option by_look=false"
        )
    return [masks.get(file.name, file) for file in files], derived


def _companions(place: list[File]) -> list[tuple[File, str, bool]]:
    """Files in one folder whose names are that of another and something more: (as mask, the other, if names decide)."""
    stems: dict[str, list[File]] = defaultdict(list)
    for file in place:
        stems[file.stem.lower()].append(file)
    found: list[tuple[File, str, bool]] = []
    unusual: dict[Affix, list[tuple[File, str, bool]]] = defaultdict(list)
    for file in place:
        inner = PurePosixPath(file.stem)
        if inner.suffix.lower() in SUFFIXES and inner.stem.lower() in stems:
            found.append((replace(file, stem=inner.stem), "", True))  # x.jpg and x.jpg.png
            continue
        others = [other for other in stems[file.stem.lower()] if other != file]
        if others:
            is_png, is_jpeg = (file.name.lower().endswith(suffixes) for suffixes in (".png", (".jpg", ".jpeg")))
            if is_png and len(others) == 1 and not others[0].name.lower().endswith(".png"):
                found.append((file, "", True))
            elif not is_jpeg and others[0].name.lower().endswith((".jpg", ".jpeg")):
                found.append((file, "", False))
            continue
        for affix in affixes(file.stem):
            shared = core(file.stem, affix)
            if shared not in stems and not set(_beginning(stems, shared)) - {file.stem.lower()}:
                continue
            base = stems[shared][0].name if shared in stems else ""
            if is_of_mask(affix):
                found.append((file, base, True))
            elif not is_of_image(affix):
                unusual[folded(affix)].append((file, base, False))
            break
    bases = len(place) - len(found)
    return found + [one for group in unusual.values() if len(group) > 1 or bases == 2 for one in group]


def _counterparts(place: list[File], looks: LooksLikeMask) -> list[File]:
    """The files of one folder that look like masks, if they differ from the others by a word: "mask001", "img001"."""
    masks = [file for file in place if looks(file.name)]
    others = [file for file in place if not looks(file.name)]
    shared = common_affix([file.stem for file in masks])
    if shared == ("", "") or not others:
        return []
    matching = _cores(others) & {core(file.stem, shared) for file in masks}
    return masks if len(matching) * 2 > len(masks) else []


def _beginning(stems: Mapping[str, list[File]], shared: str) -> list[str]:
    """Stems that are `shared` and a word for an image, such as "_sat"."""
    return [
        f"{shared}{joint}{word}" for joint in "_-. " for word in _IMAGE_ENDINGS if f"{shared}{joint}{word}" in stems
    ]


_IMAGE_ENDINGS = ("sat", "image", "img", "rgb", "photo", "leftimg8bit", "input", "raw", "orig", "original")


def other_folders(files: list[File], looks: LooksLikeMask, notes: list[str]) -> list[File]:
    """Recognise folders of masks without a usual name: their pictures look like masks and have the names of images."""
    folders: dict[str, list[File]] = defaultdict(list)
    usual = []
    for file in files:
        if file.role in ("", "image") and not file.within:
            folders[file.parent].append(file)
        elif file.role == "image":
            usual.append(file)
    like = {
        parent: sum(bool(looks(file.name, related=True)) for file in inside) >= _MOSTLY * len(inside)
        for parent, inside in folders.items()
    }
    images = _cores(usual)
    for parent, inside in folders.items():
        if not like[parent] and not usual:
            images |= _cores(inside)
    masks = {}
    for parent, inside in folders.items():
        if like[parent] and len(images & _cores(inside)) * 2 > len(inside):
            within = PurePosixPath(parent).name
            masks |= {file.name: replace(file, role="mask", within=within, folders=_without(file.folders, within))
                      for file in inside}  # fmt: skip
            notes.append(
                f"{parent}/: {len(inside)} pictures of few values with the names of images are taken for masks; if they "
                "are images: --option by_look=false"
            )
    return [masks.get(file.name, file) for file in files]


def _cores(files: list[File]) -> set[str]:
    shared = common_affix([file.stem for file in files])
    return {file.stem.lower() for file in files} | {core(file.stem, shared) for file in files}


def _without(folders: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(folder for folder in folders if folder != name)

"""Which mask belongs to which image: by names, compared ever less strictly, and by a choice between kinds of masks."""

import difflib
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath

from semiseg.data import without_suffix
from semiseg.datasets.folder.doubts import base_of, undecided
from semiseg.datasets.folder.file import File, family
from semiseg.datasets.folder.files import Listing
from semiseg.datasets.folder.kinds import Kind, choose
from semiseg.datasets.folder.names import (
    Affix,
    affixes,
    bare,
    common_affix,
    core,
    folded,
    is_of_image,
    is_of_mask,
)
from semiseg.datasets.folder.problems import Problems

_SEVERAL = "several masks for an image"
_LABEL_STUDIO = re.compile(r"task-\d+-annotation-\d+-by-.*-tag-.*")


def pair(
    listing: Listing, problems: Problems, *, given: bool = False, ending: str | None = None
) -> tuple[dict[str, File], int]:
    """The masks by name of their image, and how many of them were matched by file name only, across folders.

    Names are compared ever less strictly: equal up to the suffix; ignoring case and "_mask", "_label", "_gt"; the same in
    the folder of another split; the same in any folder; the same without words that many files share ("_manual1"). Only
    unique matches count. Masks without an image are problems. If images have masks of several kinds, drawings for people
    and masks of objects are left out; any other choice is the user's. `given`: the user has named the masks,
    perhaps by the `ending` of their names.
    """
    images = {file.name: file for file in listing.images if file.role == "image"}
    canonical, cores = _canonical(images.values())
    kinds = _kinds(listing.masks, canonical, cores, without_suffix(ending or "").lower())
    for kind in kinds:
        _match(kind, images, canonical)
    kinds = choose(kinds, listing, problems, given=given)
    found = {image: mask for kind in kinds for image, mask in kind.found.items()}
    rest = {name: mask for kind in kinds for name, mask in kind.masks.items() if mask not in kind.found.values()}
    if rest and not undecided(problems):
        _report_unmatched(listing, rest, found, problems)
    return found, sum(kind.distant for kind in kinds)


def _canonical(images: Iterable[File]) -> tuple[dict[str, str], dict[str, str]]:
    """image name -> its stem without what the images of its folder share; and any form of a stem -> this form."""
    places: dict[object, list[File]] = defaultdict(list)
    for image in images:
        places[image.split, image.folders, image.within].append(image)
    canonical, cores = {}, {}
    for inside in places.values():
        shared = common_affix([image.stem for image in inside])
        for image in inside:
            short = bare(core(image.stem, shared))
            canonical[image.name] = short
            worded = (core(image.stem, affix) for affix in affixes(image.stem) if is_of_image(affix))
            for form in (short, core(image.stem, shared), bare(image.stem), image.stem.lower(), *worded):
                cores.setdefault(form, short)
    return canonical, cores


def _kinds(masks: list[File], canonical: dict[str, str], cores: Mapping[str, str], ending: str) -> list[Kind]:
    """Sort masks into kinds; adds the canonical form of their stems to `canonical`."""
    affix: dict[str, Affix] = {}
    for mask in masks:
        given = [("", mask.stem[-len(ending) :])] if ending and mask.stem.lower().endswith(ending) else []
        candidates = [("", ""), *given, *affixes(mask.stem)]
        exact = ((one, cores.get(core(mask.stem, one))) for one in candidates)
        nearly = ((one, cores.get(bare(core(mask.stem, one)))) for one in candidates)
        for candidate, form in (*exact, *nearly):
            if form:
                affix[mask.name], canonical[mask.name] = candidate, form
                break
    support = Counter((family(mask), folded(affix[mask.name])) for mask in masks if mask.name in affix)
    alone = len(masks) == 1 and len(set(cores.values())) == 1
    kinds: dict[tuple[str, Affix], Kind] = {}
    for mask in masks:
        used = affix.get(mask.name, ("", ""))
        key = family(mask), folded(used)
        known = is_of_mask(used) or used[1].lower() == ending
        if used != ("", "") and not (known or support[key] > 1 or alone):
            used, key = ("", ""), (family(mask), ("", ""))
            del canonical[mask.name]  # a word that only one file has may be part of its name
        kinds.setdefault(key, Kind({}, used)).masks[mask.name] = mask
    return list(kinds.values())


def _match(kind: Kind, all_images: Mapping[str, File], canonical: Mapping[str, str]) -> None:
    """Match the masks of one kind to images, likeness by likeness."""

    def learnt(file: File) -> object:
        return canonical.get(file.name, file)

    likenesses: tuple[Callable[[File], object], ...] = (
        _exactly,
        _nearly,
        _in_any_split,
        _in_same_split,
        _in_any_folder,
        lambda file: (file.split, _lower(file.folders), learnt(file)),
        lambda file: (_lower(file.folders), learnt(file)),
        learnt,
    )
    images, masks = dict(all_images), dict(kind.masks)
    for likeness in likenesses:
        of_images, of_masks = _by(likeness, images.values()), _by(likeness, masks.values())
        for key, candidates in of_masks.items():
            if len(candidates) == 1 and len(of_images.get(key, ())) == 1:
                image = of_images[key][0]
                kind.of_images = image.folders
                kind.found[image.name] = masks.pop(candidates[0].name)
                del images[image.name]
                kind.distant += likeness in (_in_same_split, _in_any_folder, learnt)


def _exactly(file: File) -> tuple:
    return file.split, file.folders, file.stem


def _nearly(file: File) -> tuple:
    return file.split, _lower(file.folders), bare(file.stem)


def _in_any_split(file: File) -> tuple:
    return _nearly(file)[1:]


def _in_same_split(file: File) -> tuple:
    return file.split, bare(file.stem)


def _in_any_folder(file: File) -> str:
    return bare(file.stem)


def _lower(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(folder.lower() for folder in folders)


def _by(likeness: Callable[[File], object], files: Iterable[File]) -> dict[object, list[File]]:
    groups: dict[object, list[File]] = defaultdict(list)
    for file in files:
        groups[likeness(file)].append(file)
    return groups


def _report_unmatched(listing: Listing, masks: dict[str, File], found: dict[str, File], problems: Problems) -> None:
    """Report why masks have no image."""
    by_name = _by(_in_any_folder, listing.images)
    taken = {mask.name: image for image, mask in found.items()}
    of_masks = _by(_in_any_folder, listing.masks)
    names = list(by_name)
    for number, mask in enumerate(masks.values()):
        key = _in_any_folder(mask)
        candidates = [image.name for image in by_name.get(key, [])]
        if candidates and all(image.role == "unlabeled" for image in by_name[key]):
            problems.add(
                "mask without image",
                mask.name,
                f"{candidates[0]} is in the folder of unlabeled images; move it to the images",
            )
        elif len(candidates) > 1:
            problems.add(
                "several images for a mask",
                mask.name,
                f"{', '.join(candidates[:3])}; give the mask the name of one of them{_choice('images', candidates)}",
            )
        elif candidates and bare(PurePosixPath(mask.parent).name) in by_name and mask.parent != ".":
            what = "is one of several files in a folder named as an image; combine those of an image into one mask"
            problems.add(_SEVERAL, mask.name, what)
        elif candidates:
            rivals = [other.name for other in of_masks[key] if other != mask]
            rival = next((name for name in rivals if name in taken), rivals[0] if rivals else "another")
            choice = _choice("masks", [mask.name, *rivals])
            problems.add(_SEVERAL, mask.name, f"{candidates[0]} also has {rival}; keep one{choice}")
        else:
            near = difflib.get_close_matches(str(key), map(str, names), n=1) if number < 50 else []
            hint = f"; nearest: {by_name[near[0]][0].name}" if near else ""
            hint += f"; to leave it out: --option {shlex.quote(f'leave_out={mask.name}')}" if len(masks) == 1 else ""
            folder = PurePosixPath(mask.parent).name.lower()
            crowded = sum(other.parent == mask.parent for other in masks.values()) > len(listing.images)
            if crowded or bare(folder) in by_name:
                hint = "; if these are objects or classes in separate files, combine those of an image into one mask"
            if base := base_of(mask, listing.images):
                ending = shlex.quote(f"mask_suffix={mask.stem[len(base.stem) :]}")
                hint = f"; if it is the mask of {base.name}: --option {ending}"
            if _LABEL_STUDIO.fullmatch(mask.stem):
                hint = "; Label Studio writes a file for each task and label: combine those of an image into one mask"
            problems.add("mask without image", mask.name, f"no image of this name{hint}")


def _choice(role: str, names: list[str]) -> str:
    """A hint at the option that chooses among files in different folders."""
    folders = dict.fromkeys(str(PurePosixPath(name).parent) for name in names)
    if len(folders) < 2:
        return ""
    return f", or choose a folder with --option {shlex.quote(f'{role}={next(iter(folders))}')}"

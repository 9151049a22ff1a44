"""Which mask belongs to which image: by names, compared ever less strictly, and by a choice between kinds of masks."""

import difflib
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from semiseg.datasets.folder.files import File, Listing, family
from semiseg.datasets.folder.names import (
    Affix,
    affixes,
    bare,
    common_affix,
    core,
    folded,
    is_instances,
    is_of_mask,
    is_preview,
)
from semiseg.datasets.folder.problems import Problems

_SEVERAL = "several masks for an image"
_KINDS = "several kinds of masks"
_LABEL_STUDIO = re.compile(r"task-\d+-annotation-\d+-by-.*-tag-.*")
_DOUBT = "image that looks like a mask"
_DERIVED = "image derived from another"


@dataclass
class _Kind:
    """Masks that are named alike: in folders of one name, with one affix such as "_mask"."""

    masks: dict[str, File]
    affix: Affix
    found: dict[str, File] = field(default_factory=dict)  # image name -> mask
    distant: int = 0

    @property
    def texts(self) -> list[str]:
        return [*{mask.within for mask in self.masks.values()}, *self.affix]

    @property
    def title(self) -> str:
        """The folders and the ending of these masks."""
        places = ", ".join(self.folders)
        if self.affix[1]:
            return f"{places}/*{self.affix[1]}" if places else f"*{self.affix[1]}"
        return places or (f"{self.affix[0]}*" if self.affix[0] else "files with the names of images")

    @property
    def folders(self) -> list[str]:
        return sorted({mask.within for mask in self.masks.values() if mask.within})


def pair(listing: Listing, problems: Problems) -> tuple[dict[str, File], int]:
    """The masks by name of their image, and how many of them were matched by file name only, across folders.

    Names are compared ever less strictly: equal up to the suffix; ignoring case and "_mask", "_label", "_gt"; the same in
    the folder of another split; the same in any folder; the same without words that many files share ("_manual1"). Only
    unique matches count. Masks without an image are problems. If images have masks of several kinds, drawings for people
    and masks of objects are left out; any other choice is the user's.
    """
    images = {file.name: file for file in listing.images if file.role == "image"}
    canonical, cores = _canonical(images.values())
    kinds = _kinds(listing.masks, canonical, cores)
    for kind in kinds:
        _match(kind, images, canonical)
    kinds = _choose(kinds, listing, problems)
    found = {image: mask for kind in kinds for image, mask in kind.found.items()}
    rest = {name: mask for kind in kinds for name, mask in kind.masks.items() if mask not in kind.found.values()}
    if rest and not undecided(problems):
        _report_unmatched(listing, rest, found, problems)
    return found, sum(kind.distant for kind in kinds)


def undecided(problems: Problems) -> bool:
    """Whether it is not known which files are masks, so that other problems may be consequences."""
    return any(kind in (_KINDS, _DOUBT, _DERIVED) for kind, _, _ in problems.rows)


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
            for form in (short, core(image.stem, shared), bare(image.stem), image.stem.lower()):
                cores.setdefault(form, short)
    return canonical, cores


def _kinds(masks: list[File], canonical: dict[str, str], cores: Mapping[str, str]) -> list[_Kind]:
    """Sort masks into kinds; adds the canonical form of their stems to `canonical`."""
    affix: dict[str, Affix] = {}
    for mask in masks:
        candidates = [("", ""), *affixes(mask.stem)]
        exact = ((one, cores.get(core(mask.stem, one))) for one in candidates)
        nearly = ((one, cores.get(bare(core(mask.stem, one)))) for one in candidates)
        for candidate, form in (*exact, *nearly):
            if form:
                affix[mask.name], canonical[mask.name] = candidate, form
                break
    support = Counter((family(mask), folded(affix[mask.name])) for mask in masks if mask.name in affix)
    alone = len(masks) == 1 and len(set(cores.values())) == 1
    kinds: dict[tuple[str, Affix], _Kind] = {}
    for mask in masks:
        used = affix.get(mask.name, ("", ""))
        key = family(mask), folded(used)
        if used != ("", "") and not (is_of_mask(used) or support[key] > 1 or alone):
            used, key = ("", ""), (family(mask), ("", ""))
            del canonical[mask.name]  # a word that only one file has may be part of its name
        kinds.setdefault(key, _Kind({}, used)).masks[mask.name] = mask
    return list(kinds.values())


def _match(kind: _Kind, all_images: Mapping[str, File], canonical: Mapping[str, str]) -> None:
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
                kind.found[image.name] = masks.pop(candidates[0].name)
                del images[image.name]
                kind.distant += likeness in (_in_same_split, _in_any_folder, learnt)


def _choose(kinds: list[_Kind], listing: Listing, problems: Problems) -> list[_Kind]:
    """The kinds to use; a problem if images have masks of several kinds and no rule decides."""
    holders: dict[str, list[_Kind]] = defaultdict(list)
    for kind in kinds:
        for image in kind.found:
            holders[image].append(kind)
    rivals = [kind for kind in kinds if any(kind in held and len(held) > 1 for held in holders.values())]
    rules = (
        ("drawings of masks for people", lambda kind: is_preview(kind.texts)),
        ("masks of objects, not of classes", lambda kind: is_instances(kind.texts)),
        ("masks of training ids", lambda kind: "trainids" in kind.affix[1].lower()),
    )
    left = list(rivals)
    for why, unfit in rules:
        if kept := [kind for kind in left if not unfit(kind)]:
            for kind in left:
                if kind not in kept:
                    listing.ignored[f"{why} ({kind.title})"] += len(kind.masks)
            left = kept
    kept = [kind for kind in kinds if kind in left or kind not in rivals]
    if len(rivals) > len(left):
        listing.notes.append(f"masks: {', '.join(kind.title for kind in left)}, because images have several")
    clashing = [image for image, held in holders.items() if sum(kind in left for kind in held) > 1]
    if clashing:
        first = min(clashing)
        what = ", ".join(f"{kind.found[first].name if first in kind.found else kind.title} "
                         f"(one of {len(kind.masks)})" for kind in left if first in kind.found)  # fmt: skip
        options = " or ".join(dict.fromkeys(_option(kind, left) for kind in left))
        count = f"{len(clashing)} image{'s have' if len(clashing) > 1 else ' has'} masks of several kinds"
        problems.add(
            _KINDS,
            first,
            f"has {what}; {count}: choose one with {options} (classes or objects in separate files: combine them first)",
        )
    return kept


def _option(kind: _Kind, rivals: list[_Kind]) -> str:
    """The options that choose one kind of masks among others."""
    options = []
    if kind.folders and any(other.folders != kind.folders for other in rivals):
        options.append(f"--option {shlex.quote('masks=' + ','.join(kind.folders))}")
    elif kind.affix[1]:
        options.append(f"--option {shlex.quote('mask_suffix=' + kind.affix[1])}")
    same = [other for other in rivals if other is not kind and other.folders == kind.folders]
    if kind.folders and same and len(options) and kind.affix[1] and "mask_suffix" not in options[0]:
        options.append(f"--option {shlex.quote('mask_suffix=' + kind.affix[1])}")
    return " ".join(options) or f"moving {kind.title} elsewhere"


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
        elif candidates:
            rivals = [other.name for other in of_masks[key] if other != mask]
            rival = next((name for name in rivals if name in taken), rivals[0] if rivals else "another")
            choice = _choice("masks", [mask.name, *rivals])
            problems.add(_SEVERAL, mask.name, f"{candidates[0]} also has {rival}; keep one{choice}")
        else:
            near = difflib.get_close_matches(str(key), map(str, names), n=1) if number < 50 else []
            hint = f"; nearest: {by_name[near[0]][0].name}" if near else ""
            if sum(other.parent == mask.parent for other in masks.values()) > len(listing.images):
                hint = "; if these are objects or classes in separate files, combine those of an image into one mask"
            if _LABEL_STUDIO.fullmatch(mask.stem):
                hint = "; Label Studio writes a file for each task and label: combine those of an image into one mask"
            problems.add("mask without image", mask.name, f"no image of this name{hint}")


def _choice(role: str, names: list[str]) -> str:
    """A hint at the option that chooses among files in different folders."""
    folders = dict.fromkeys(str(PurePosixPath(name).parent) for name in names)
    if len(folders) < 2:
        return ""
    return f", or choose a folder with --option {shlex.quote(f'{role}={next(iter(folders))}')}"


def refuse_masks_as_images(listing: Listing, found: Mapping[str, File], problems: Problems) -> None:
    """Report images without masks that look like masks, or are named like something drawn from another image.

    If most images with masks look so, too, they are drawings.
    """
    looks = {} if 2 * sum(name in listing.doubtful for name in found) > len(found) > 0 else listing.doubtful
    folders: dict[tuple[str, bool], list[File]] = defaultdict(list)
    for image in listing.images:
        if image.name not in found and (image.name in looks or image.name in listing.derived):
            folders[image.parent, image.name in looks].append(image)
    photographs = any(image.name not in listing.doubtful for image in listing.images)
    for (parent, by_look), inside in sorted(folders.items()):
        first = inside[0]
        total = sum(image.parent == parent for image in listing.images)
        keep = "if they are images, --option by_look=false"
        drop = f"to leave them out, --option {shlex.quote(f'leave_out={_pattern(inside)}')}"
        if not by_look:
            what = f"has the name of {listing.derived[first.name]} and something more, as {len(inside)} of {total} in {parent}/"
            ending = f"--option mask_suffix={shlex.quote(_ending(first, listing.derived[first.name]))}"
            problems.add(_DERIVED, first.name, f"{what}: if they are masks, {ending}; {keep}; {drop}")
            continue
        what = f"{looks[first.name]}, as {len(inside)} of {total} images in {parent}/ that have no mask"
        move = f"--option {shlex.quote(f'masks={parent}')}"
        if not photographs:
            move = "add the images, with the same names, in images/"
        elif total > len(inside):
            move = "give them the names of their images with _mask, or move them to masks/"
        problems.add(_DOUBT, first.name, f"{what}: if they are masks, {move}; {keep}; {drop}")


def _pattern(files: list[File]) -> str:
    """A pattern for the option leave_out that matches these files and as few others as possible."""
    front, end = common_affix([file.stem for file in files])
    suffixes = {PurePosixPath(file.name).suffix for file in files}
    stem = files[0].stem  # affixes are in lower case
    name = f"{stem[: len(front)]}*{stem[len(stem) - len(end) :] if end else ''}"
    if len(files) == 1:
        return files[0].name
    path = "" if files[0].parent == "." else f"{files[0].parent}/"
    return f"{path}{name}{suffixes.pop() if len(suffixes) == 1 else ''}"


def _ending(file: File, base: str) -> str:
    return file.stem[len(PurePosixPath(base).stem) :]

"""Kinds of masks of one data set, such as ids and drawings of them, and the choice between them."""

import shlex
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from semiseg.datasets.folder.doubts import KINDS, pattern_of
from semiseg.datasets.folder.file import File
from semiseg.datasets.folder.files import Listing
from semiseg.datasets.folder.names import Affix, common_start, is_instances, is_preview, is_rgb
from semiseg.datasets.folder.problems import Problems, plain


@dataclass
class Kind:
    """Masks that are named alike: in folders of one name, with one affix such as "_mask"."""

    masks: dict[str, File]
    affix: Affix
    found: dict[str, File] = field(default_factory=dict)  # image name -> mask
    distant: int = 0
    of_images: tuple[str, ...] = ()  # folders of a matched image, which those of its mask repeat

    @cached_property
    def places(self) -> list[str]:
        """The folders of these masks, as deep as all of them are in it; by its last name if a split is in between."""
        shared = common_start([mask.after for mask in self.masks.values()])
        while shared and shared[-1] in self.of_images:
            shared = shared[:-1]
        found = set()
        for mask in self.masks.values():
            path = "/".join((mask.within, *shared))
            found.add(path if f"/{path}/" in f"/{plain(mask.parent)}/" else path.rpartition("/")[2])
        return sorted(found - {""})

    @property
    def texts(self) -> list[str]:
        return [*self.places, *self.affix]

    @property
    def title(self) -> str:
        """The folders and the ending of these masks."""
        places = ", ".join(self.places)
        if self.affix[1]:
            return f"{places}/*{self.affix[1]}" if places else f"*{self.affix[1]}"
        return places or (f"{self.affix[0]}*" if self.affix[0] else "files with the names of images")


def choose(kinds: list[Kind], listing: Listing, problems: Problems, *, given: bool) -> list[Kind]:
    """The kinds to use; a problem if images have masks of several kinds and no rule decides."""
    holders: dict[str, list[Kind]] = defaultdict(list)
    for kind in kinds:
        for image in kind.found:
            holders[image].append(kind)
    rivals = [kind for kind in kinds if any(kind in held and len(held) > 1 for held in holders.values())]
    rules = (
        ("drawings of masks for people", lambda kind: is_preview(kind.texts)),
        ("drawings of masks for people", lambda kind: is_rgb(kind.texts)),
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
    used = [kind for kind in kept if kind.found]
    if used and not given and all(is_instances(kind.texts) for kind in used):
        kind = used[0]
        choice = f"--option {shlex.quote('masks=' + ','.join(kind.places))}" if kind.places else ""
        choice = choice or f"--option {shlex.quote('mask_suffix=' + kind.affix[1])}"
        what = f"is named as a mask of objects, not of classes, and there are no others: if it holds classes, {choice}"
        problems.add(KINDS, min(kind.masks), what)
    clashing = [image for image, held in holders.items() if sum(kind in left for kind in held) > 1]
    if clashing:
        first = min(clashing)
        what = ", ".join(f"{kind.found[first].name if first in kind.found else kind.title} "
                         f"(one of {len(kind.masks)})" for kind in left if first in kind.found)  # fmt: skip
        options = " or ".join(dict.fromkeys(_option(kind, left, listing.masks) for kind in left))
        count = f"{len(clashing)} image{'s have' if len(clashing) > 1 else ' has'} masks of several kinds"
        problems.add(
            KINDS,
            first,
            f"has {what}; {count}: choose one with {options} (classes or objects in separate files: combine them first)",
        )
    return kept


def _option(kind: Kind, rivals: list[Kind], pictures: list[File]) -> str:
    """The options that choose one kind of masks among others."""
    others = [other for other in rivals if other is not kind]
    here, there = set(kind.places), {place for other in others for place in other.places}
    if here and not any(_within(other, place) for place in here for other in there):
        return f"--option {shlex.quote('masks=' + ','.join(kind.places))}"
    if kind.affix[1] and not any(other.affix[1].lower().endswith(kind.affix[1].lower()) for other in others):
        return f"--option {shlex.quote('mask_suffix=' + kind.affix[1])}"
    patterns = [pattern_of(list(other.masks.values()), pictures) for other in others]
    return f"--option {shlex.quote('leave_out=' + ','.join(patterns))}"


def _within(place: str, folder: str) -> bool:
    """Whether masks=folder would include what is in `place`."""
    return place == folder or place.startswith(f"{folder}/") or f"/{place}/".endswith(f"/{folder}/")

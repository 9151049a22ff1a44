"""What the papers report for the methods of a study: other data, networks and budgets, so in a separate table."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """what: data and setting; figure: mIoU in percent or points, as printed in the paper."""

    paper: str
    url: str
    what: str
    figure: str


_CCT = ("CCT, CVPR 2020", "https://arxiv.org/abs/2003.09005")
_SCL = ("Structured consistency, ICLR 2020 submission", "https://arxiv.org/abs/2001.04647")

_CLAIMS = {
    "cross_consistency": [
        Claim(*_CCT, "CamVid, 20 labels, test split, ResNet-50: gain over the labels alone (a plot)", "up to 21 points"),
        Claim(*_CCT, "the same study: further gain by annealed bootstrapped cross entropy (ab-CE)", "up to 8 %"),
        Claim(*_CCT, "PASCAL VOC val, 1,000 labels: gain over the labels alone (a plot)", "10 to 15 points"),
        Claim(*_CCT, "PASCAL VOC val, 1,500 labels, 30 auxiliary decoders; no supervised figure beside it", "69.4"),
        Claim(*_CCT, "Cityscapes and CamVid together, 50 labels each, CamVid test; labels alone 40.0", "53.7"),
        Claim(*_CCT, "Cityscapes and CamVid together, 100 labels each, CamVid test; labels alone 34.4", "55.7"),
    ],
    "structured_consistency": [
        Claim(*_SCL, "Cityscapes val, all fine labels, WideResNet38 from Mapillary Vistas: supervised", "81.17"),
        Claim(*_SCL, "the same with a mean teacher and CutMix", "81.55"),
        Claim(*_SCL, "the same with the structure term as well", "81.90"),
    ],
}  # fmt: skip


def claims(objectives: Iterable[str]) -> list[Claim]:
    """The claims for these kinds of objectives, as named in recipes."""
    wanted = set(objectives)
    return [claim for kind, found in _CLAIMS.items() if kind in wanted for claim in found]

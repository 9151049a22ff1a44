"""Structured consistency, and mean teacher with CutMix: agreement of single pixels and of pairs of pixels."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from semiseg.methods.choices import check_choice
from semiseg.methods.cutmix import covered, draw_boxes, paste
from semiseg.methods.losses import OVER, pixel_mean, resize_logits
from semiseg.methods.objective import Losses, Objective, Part, Step
from semiseg.methods.ramps import Ramp
from semiseg.methods.structure import structure_loss


class StructuredConsistency(Objective):
    """Makes the student's prediction of a CutMix image agree with the CutMix of the teacher's predictions.

    The student sees boxes of a partner b pasted into an image a; the target pastes the moving-average teacher's
    predictions of the unmixed a and b in the same way. Two terms, both on softmax at the image's size ("Structured
    Consistency Loss for semi-supervised semantic segmentation", ICLR 2020 submission, Eq. 3, 4 and 10):

    pixel: weight of "pixel_consistency", the mean over pixels of the squared distance between the two distributions,
    summed over classes. structure: weight of "structure_consistency", see `structure_loss`; a `Ramp` of value 0 disables
    it and leaves the mean teacher with CutMix of French et al. 2020 (theirs: boxes=1 with unbounded aspect, confidence
    0.97, decay 0.99).
    boxes, area, area_of, sizes, aspect: see `draw_boxes`. compared: number of boxes, the last ones, that count for
    structure. pairs: "all" pairs of a box's pixels, or this many random ones (the paper: 9000).
    confidence: ignore pixels whose target has no probability above it in both terms; an image without any other counts
    0. None uses all pixels, as the paper does. over: the pixel term divides by all "valid" pixels of an image, so that
    it grows with the share of confident ones (as FixMatch's and UniMatch's losses do, and French et al.'s on average), or
    by those "kept", so that a few confident pixels count as much as an image full of them.
    Padded pixels never count: they are neither kept nor valid, and belong to no box.

    The step needs a `teacher`, and unlabeled images with partners. Encoder passes per step: one of the student, on the
    mixed images, and one of the teacher, on images and partners together. The student never sees the unmixed images, so
    another objective that uses `step.features("unlabeled")` adds a pass.
    Diagnostics: both terms "_unweighted" (structure only if enabled), "covered" (share of the image under boxes) and
    "teacher_confidence" (mean largest probability of the target).
    """

    needs = frozenset({"unlabeled"})

    def __init__(
        self,
        *,
        pixel: Ramp | None = None,
        structure: Ramp | None = None,
        boxes: int = 32,
        compared: int = 16,
        area: float = 0.5,
        area_of: str = "nominal",
        sizes: str = "uniform",
        aspect: float = 2.0,
        pairs: int | Literal["all"] = "all",
        confidence: float | None = None,
        over: str = "valid",
    ) -> None:
        super().__init__()
        check_choice("StructuredConsistency(over=...)", over, OVER)
        if not 1 <= compared <= boxes:
            raise ValueError(f"StructuredConsistency(compared={compared}): expected 1..{boxes}, the number of boxes")
        self.pixel = pixel or Ramp(20.0, shape="constant")
        self.structure = structure or Ramp(3.0, shape="constant")
        self.boxes = {"count": boxes, "area": area, "area_of": area_of, "sizes": sizes, "aspect": aspect}
        self.compared = range(boxes - compared + 1, boxes + 1)
        self.pairs: int | Literal["all"] = pairs
        self.confidence = confidence
        self.over = over

    def forward(self, step: Step) -> Losses:
        return self.begin(step)()

    def begin(self, step: Step) -> Callable[[], Losses]:
        part = step.part("unlabeled")
        if part.partners is None:
            raise ValueError(
                "the unlabeled part has no partners to mix its images with; pass Part(images, partners=...)"
            )
        size = (part.images.shape[2], part.images.shape[3])
        boxes = draw_boxes(step.random("boxes"), size, device=part.images.device, **self.boxes)
        step.plan("unlabeled, mixed", paste(part.images, part.partners, boxes))
        return lambda: self._losses(step, part, boxes)

    def _losses(self, step: Step, part: Part, boxes: Tensor) -> Losses:
        size = (part.images.shape[2], part.images.shape[3])
        student = resize_logits(step.logits("unlabeled, mixed"), size).softmax(1)
        target = self._target(step, boxes)

        valid = part.mixed_valid(boxes)
        kept = None if self.confidence is None else target.amax(1) > self.confidence
        per_pixel = (student - target).square().sum(1)
        pixel = part.average(pixel_mean(per_pixel, kept=kept, valid=valid, over=self.over))
        losses = Losses(
            {"pixel_consistency": self.pixel(step.progress, step.step) * pixel},
            {
                "pixel_consistency_unweighted": pixel.detach(),
                "covered": part.average(covered(boxes)),
                "teacher_confidence": part.average(pixel_mean(target.amax(1), valid=valid)),
            },
        )
        if self.structure.value:
            within = boxes
            for counted in (kept, valid):
                within = within if counted is None else within.masked_fill(~counted, 0)
            random = None if self.pairs == "all" else step.random("pairs")
            structure = part.average(
                structure_loss(student, target, within, pairs=self.pairs, compared=self.compared, random=random)
            )
            losses.terms["structure_consistency"] = self.structure(step.progress, step.step) * structure
            losses.diagnostics["structure_consistency_unweighted"] = structure.detach()
        return losses

    @torch.no_grad()
    def _target(self, step: Step, boxes: torch.Tensor) -> torch.Tensor:
        """The teacher's probabilities of the unmixed images and partners, pasted like the student's images."""
        part = step.part("unlabeled")
        assert part.partners is not None
        logits = step.teacher(torch.cat([part.images, part.partners]))
        own, other = resize_logits(logits, (boxes.shape[1], boxes.shape[2])).chunk(2)
        return paste(own, other, boxes).softmax(1)

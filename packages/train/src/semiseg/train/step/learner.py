"""The model and its objectives as one module, so that a micro-step is one forward and one backward, also for DDP."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from semiseg.data import key64
from semiseg.methods import Losses, Objective, Part, Step, Teacher
from semiseg.models import Features, Segmenter
from semiseg.train.step.batches import Batch, Samples


class Learner(nn.Module):
    """`forward(batch)` turns one micro-batch of any number of domains into named losses."""

    def __init__(
        self,
        model: Segmenter,
        objectives: Mapping[str, Sequence[Objective]],
        *,
        weights: Mapping[str, float] | None = None,
        teacher: Teacher | None = None,
        joint: bool = False,
        seed: int = 0,
        control: bool = False,
    ) -> None:
        """`objectives` per domain, each with its own parameters; `weights` of the domains' losses (default 1).

        `teacher`: the moving average of `model`, where an objective asks for one. `control`: objectives that need other
        than labeled images run with weight 0.
        """
        super().__init__()
        self.model = model
        self.objectives = nn.ModuleDict({domain: nn.ModuleList(own) for domain, own in objectives.items()})
        self.weights = dict(weights or {})
        self.teacher = teacher
        self.joint = joint
        self.seed = seed
        self.control = control

    def forward(self, batch: Batch, *, step: int, steps: int) -> Losses:
        """Losses of a micro-batch, named "<domain>/<term>"; `step` of `steps` sets ramps and random numbers."""
        total = Losses()
        for domain, roles in batch.items():
            view = self._view(domain, roles, step, steps)
            weight = self.weights.get(domain, 1.0)
            objectives = list(self.objectives[domain])  # type: ignore[arg-type]  # a ModuleList
            for objective, finish in [(objective, objective.begin(view)) for objective in objectives]:
                losses = finish()
                own = 0.0 if self.control and objective.needs != {"labeled"} else weight
                losses.terms = {name: own * term for name, term in losses.terms.items()}
                total = total + losses.prefixed(f"{domain}/")
        return total

    def after_step(self, step: int) -> None:
        """What follows an optimizer step, of whatever number of micro-steps: the teacher. All ranks call this."""
        if self.teacher is not None:
            self.teacher.update(self.model, step)

    def average(self) -> Segmenter:
        """The teacher's model; ValueError where no objective has a teacher."""
        if self.teacher is None:
            raise ValueError("this learner has no teacher: none of its objectives asks for one")
        assert isinstance(self.teacher.model, Segmenter)
        return self.teacher.model

    def _view(self, domain: str, roles: Mapping[str, Samples], step: int, steps: int) -> Step:
        """What the objectives of one domain may ask for, computed once and shared."""

        def decode(features: Features) -> Tensor:
            return self.model.decode(features, domain)

        def teach(images: Tensor) -> Tensor:
            averaged = self.average()
            return averaged.decode(averaged.encode(images), domain)

        def generators(name: str, part: str) -> list[torch.Generator]:
            samples = roles[part]
            return [
                torch.Generator(samples.images.device).manual_seed(key64(self.seed, name, samples.stream, position))
                for position in samples.positions
            ]

        parts = {
            role: Part(
                own.images,
                own.masks,
                own.weights,
                own.partners,
                own.valid,
                own.partners_valid,
                own.strong,
                own.partners_strong,
            )
            for role, own in roles.items()
        }
        return Step(
            progress=step / steps,
            step=step,
            parts=parts,
            encode=self.model.encode,
            decode=decode,
            teacher=None if self.teacher is None else teach,
            random=generators,
            joint=self.joint,
        )

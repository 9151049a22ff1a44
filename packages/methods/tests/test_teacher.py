"""The EMA teacher against its formula."""

import pytest
import torch
from torch import Tensor, nn

from semiseg.methods import Teacher


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("rule", ["warmup", "average", "constant"])
@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_formula(rule: str, buffers: str):
    student = network()
    teacher = Teacher(student, decay=0.7, rule=rule, buffers=buffers)
    expected = {name: value.double() for name, value in student.state_dict().items()}
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for step in range(40):
        student(torch.randn(4, 3, 6, 6)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        teacher.update(student, step)
        d = {"warmup": min(0.7, (1 + step) / (10 + step)), "average": min(0.7, 1 - 1 / (step + 1)), "constant": 0.7}[
            rule
        ]
        for name, value in student.state_dict().items():
            averaged = value.is_floating_point() and (buffers == "average" or "running" not in name)
            expected[name] = d * expected[name] + (1 - d) * value.double() if averaged else value.double()
        assert teacher.decay_at(step) == d
    assert teacher.decay_at(39) == 0.7
    for name, value in teacher.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_forward_pass_changes_no_buffer(mode: str):
    """Mode "train" normalises by batch statistics and leaves the running ones unchanged."""
    teacher = Teacher(network(), mode=mode).train()
    before = {name: value.clone() for name, value in teacher.model.state_dict().items() if "running" in name}
    images = 5 + 3 * torch.randn(4, 3, 6, 6)
    norm = next(module for module in teacher.model.modules() if isinstance(module, nn.BatchNorm2d))
    seen: list[Tensor] = []

    def record(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen.append(output)

    norm.register_forward_hook(record)
    assert not teacher.model(images).requires_grad
    assert (abs(float(seen[0].mean())) < 1e-3) == (mode == "train")
    for name, value in teacher.model.state_dict().items():
        assert "running" not in name or value.equal(before[name])


def test_the_student_is_unchanged_and_modes_are_kept():
    student = network()
    teacher = Teacher(student)
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert student[1].momentum == 0.1
    assert not teacher.train().model.training
    assert (
        Teacher(student, mode="train").train().model.training
        and not Teacher(student, mode="train").eval().model.training
    )


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="did you mean 'eval'"):
        Teacher(network(), mode="evl")
    with pytest.raises(ValueError, match="0 <= decay < 1"):
        Teacher(network(), decay=1)

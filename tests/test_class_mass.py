"""tools/class_mass.py: its sums against a loop over pixels."""

import runpy
from pathlib import Path

import torch

TOOL = Path(__file__).parent.parent / "tools/class_mass.py"


def test_sums_equal_a_loop_over_pixels():
    tool = runpy.run_path(str(TOOL))
    generator = torch.Generator().manual_seed(0)
    sums = tool["Sums"](3)
    true, mass, named, own, sure = [0.0] * 3, [0.0] * 3, [0.0] * 3, [0.0] * 3, 0.0
    for _ in range(2):
        predicted = torch.rand(3, 4, 5, generator=generator).softmax(0)
        truth = torch.randint(0, 3, (4, 5), generator=generator, dtype=torch.uint8)
        truth[0, :2] = 255
        sums.add(predicted, truth)
        for y, x in ((y, x) for y in range(4) for x in range(5) if truth[y, x] != 255):
            values, label = predicted[:, y, x].double().tolist(), int(truth[y, x])
            true[label] += 1
            own[label] += values[label]
            named[values.index(max(values))] += 1
            sure += max(values)
            mass = [total + value for total, value in zip(mass, values, strict=True)]
    for found, wanted in ((sums.true, true), (sums.mass, mass), (sums.named, named), (sums.own, own)):
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    assert abs(sums.sure - sure) < 1e-9

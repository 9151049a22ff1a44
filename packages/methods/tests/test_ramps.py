import math

import pytest

from semiseg.methods import Ramp


def test_the_gaussian_equals_its_closed_form():
    ramp = Ramp(30, over=0.1)
    assert ramp(0.0) == 0.0  # the paper starts from zero
    assert ramp(1e-9) == pytest.approx(30 * math.exp(-5), rel=1e-6)  # and follows the curve from the next step on
    assert ramp(0.05) == pytest.approx(8.5951, abs=1e-4)
    assert ramp(0.1) == ramp(0.7) == ramp(1.0) == 30


def test_the_authors_gaussian_starts_at_exp_minus_five():
    assert Ramp(30, from_zero=False)(0.0) == pytest.approx(0.2021, abs=1e-4)


def test_the_weight_is_zero_before_the_start():
    ramp = Ramp(10, over=0.3, start=0.1, from_zero=False)
    assert ramp(0.0) == ramp(0.0999) == 0.0
    assert ramp(0.1) == pytest.approx(10 * math.exp(-5))
    assert ramp(0.25) == pytest.approx(10 * math.exp(-5 / 4))
    assert ramp(0.4) == pytest.approx(10)
    assert Ramp(10, over=0.3, start=0.1)(0.1) == 0.0


def test_linear_and_constant():
    assert [Ramp(4, over=0.5, shape="linear")(p) for p in (0, 0.25, 0.5, 1)] == [0, 2, 4, 4]
    assert [Ramp(20, shape="constant", start=0.2)(p) for p in (0, 0.19, 0.2, 1)] == [0, 0, 20, 20]


def test_a_ramp_of_length_zero_is_a_step():
    assert [Ramp(3, over=0)(p) for p in (0, 1e-6, 1)] == [0, 3, 3]


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="did you mean 'gaussian'"):
        Ramp(1, shape="gausian")
    with pytest.raises(ValueError, match="start=10"):
        Ramp(1, start=10)

"""The test class for adapters: it passes for a correct one, and every test of it fails for an adapter that violates it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from semiseg.data import Adapter, AdapterContract, DataError, RawSample, RawSpace


class TestPictures(AdapterContract):
    """As a data set package would write it."""

    @pytest.fixture
    def adapter(self, adapt: Callable[..., Adapter], draw: Callable[..., list[RawSample]]) -> Adapter:
        return adapt(draw(8))


def shuffled(adapter: Any) -> None:
    listed = adapter.listed

    def samples(split: str) -> Iterator[RawSample]:
        listed.append(listed.pop(0))
        return iter(list(listed))

    adapter.samples = samples


def change(adapter: Any, **fields: Any) -> None:
    adapter.listed[1] = replace(adapter.listed[1], **fields)


@pytest.mark.parametrize(
    ("test", "harm"),
    [
        ("describes_itself", lambda adapter: setattr(adapter, "name", "Two Words")),
        (
            "taxonomies_are_of_its_raw_space",
            lambda adapter: setattr(adapter, "raw_space", RawSpace(name="x", names={0: ""})),
        ),
        (
            "splits_are_there_or_say_why_not",
            lambda adapter: setattr(adapter, "split", replace(adapter.split, samples=0)),
        ),
        ("lists_every_sample_once_in_one_order", shuffled),
        ("lists_every_sample_once_in_one_order", lambda adapter: change(adapter, key="p000")),
        ("lists_every_sample_once_in_one_order", lambda adapter: adapter.listed.pop()),
        ("samples_hold_pictures_and_known_ids", lambda adapter: change(adapter, label=partial(np.full, (11, 17), 5))),
        (
            "samples_hold_pictures_and_known_ids",
            lambda adapter: change(adapter, label=partial(np.zeros, (17, 11), int)),
        ),
        ("samples_hold_pictures_and_known_ids", lambda adapter: change(adapter, label=None)),
        ("samples_travel_to_other_processes", lambda adapter: change(adapter, label=lambda: np.zeros((11, 17), int))),
    ],
)
def test_the_contract_bites(adapt, draw, test, harm):
    adapter = adapt(draw(6))
    harm(adapter)
    with pytest.raises((AssertionError, AttributeError, DataError)):
        getattr(AdapterContract(), f"test_{test}")(adapter)

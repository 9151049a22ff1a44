"""The adapter contract, for both generated data sets."""

import pytest

from semiseg.data.testing import AdapterContract
from semiseg.datasets.synthetic import Room, Street


class TestStreet(AdapterContract):
    @pytest.fixture
    def adapter(self) -> Street:
        return Street(size=(64, 48), train_count=12, val_count=7)


class TestRoom(AdapterContract):
    @pytest.fixture
    def adapter(self) -> Room:
        return Room(size="64x48", train_count="9", val_count="6", seed=3)


def test_streets_are_what_the_quickstart_trains_on() -> None:
    assert Street().next_steps(["train", "val"], "my shards") == ["semiseg train quickstart 'data.shards=my shards'"]
    assert Street().next_steps(["train"], "s") == Room().next_steps(["train", "val"], "s") == []

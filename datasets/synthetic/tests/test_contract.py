"""What every adapter promises, for both generated data sets."""

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

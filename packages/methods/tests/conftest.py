from collections.abc import Callable

import pytest
import torch


@pytest.fixture
def generators() -> Callable[..., list[torch.Generator]]:
    """generators(3, 7) are the generators of samples 3 and 7, the same at every call."""
    return lambda *samples: [torch.Generator().manual_seed(1000 + sample) for sample in samples]

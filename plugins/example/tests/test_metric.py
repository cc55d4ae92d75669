"""What only the author knows: that the number is the one it claims to be."""

import numpy as np
from edge_sharpness.metric import gap


def test_the_gap_of_two_known_sets() -> None:
    value, error, dof = gap(np.array([1.0, 3.0]), np.array([5.0, 7.0]))
    assert value == 4.0
    assert np.isclose(error, np.sqrt(2.0))
    assert dof == 2

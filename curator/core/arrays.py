"""Types of arrays, declared once."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
"""Double-precision numbers. The docstring of each function gives their shape."""
Mask = npt.NDArray[np.bool_]
"""Membership of tasks or examples: True if the task is in the subset."""

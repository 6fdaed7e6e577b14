"""Which track goes on as which instance: the assignment that agrees best."""

from __future__ import annotations

import numpy as np


def require_scipy() -> None:
    """Import what solves the assignment, which takes some tenths of a second the first time.

    Raises:
        ValueError: SciPy is not installed.
    """
    try:
        import scipy.optimize  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"tracking needs SciPy ({error}); install it with pip install scipy, or "
            "apt install python3-scipy"
        ) from error


def assign(agreement: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair rows with columns, each at most once, so that the pairs agree most in all.

    Args:
        agreement: (rows, columns), 0 and above.
        least: Pairs that agree less are none.

    Returns:
        Rows and columns of the pairs: int64, (pairs,) each, by row.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.where(agreement < least, 0, agreement), maximize=True)
    fits = agreement[rows, columns] >= least
    return rows[fits], columns[fits]

"""What is published of the ten recorded mice, and what the simulated ones imitate.

Source: statistics over the training trials, computed from the recordings' published metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

__all__ = ["MICE", "Mouse", "draw_skewed"]


@dataclass(frozen=True)
class Mouse:
    """Statistics of one recording.

    Attributes
    ----------
    response_mean, response_cv : tuple of float
        5 %, 50 % and 95 % quantile over neurons of the mean response (arbitrary units), and of std / mean.
    depth_correlation : float
        Correlation over neurons of the logarithm of the std with depth.
    silent_share : float
        Share of the neurons whose median response is below 1e-6.
    dilation : tuple of float
        Mean, std, minimum and maximum of pupil dilation.
    running : tuple of float
        Mean, std, median and maximum of running speed.
    pupil_mean, pupil_std : tuple of float
        Horizontal and vertical position of the pupil's center, pixels of the eye camera.
    """

    response_mean: tuple[float, float, float]
    response_cv: tuple[float, float, float]
    depth_correlation: float
    silent_share: float
    dilation: tuple[float, float, float, float]
    running: tuple[float, float, float, float]
    pupil_mean: tuple[float, float]
    pupil_std: tuple[float, float]


#: By alias of the session.
MICE: Mapping[str, Mouse] = MappingProxyType(
    {
        "A": Mouse(
            (0.676, 2.25, 10.6), (2.87, 4.41, 6.49), -0.306, 0.908,
            (53.6, 14.8, 20.8, 88.1), (5.55, 8.74, 0.04, 47.1), (119.9, 119.9), (4.9, 6.87),
        ),
        "B": Mouse(
            (0.738, 2.16, 10.1), (3.21, 4.87, 7.12), -0.381, 0.96,
            (48.2, 12.0, 24.0, 85.7), (0.298, 1.23, 0.0041, 21.0), (152.3, 140.2), (6.35, 5.6),
        ),
        "C": Mouse(
            (0.959, 2.66, 9.14), (3.1, 4.71, 6.64), -0.443, 0.944,
            (52.1, 14.3, 23.1, 92.1), (1.47, 4.27, 0.004, 31.3), (155.8, 155.3), (5.74, 5.51),
        ),
        "D": Mouse(
            (0.925, 2.77, 11.2), (3.01, 4.55, 6.34), -0.261, 0.898,
            (41.5, 15.5, 12.3, 86.2), (0.472, 1.89, 0.0, 19.0), (180.1, 178.6), (4.96, 6.98),
        ),
        "E": Mouse(
            (0.786, 2.67, 11.4), (3.21, 4.98, 7.26), -0.303, 0.9,
            (51.1, 16.1, 20.0, 88.5), (2.24, 5.0, 0.02, 32.2), (151.5, 146.6), (7.04, 5.77),
        ),
        "F": Mouse(
            (0.889, 2.5, 10.0), (3.08, 5.01, 7.12), -0.349, 0.928,
            (39.8, 16.1, 10.2, 81.0), (0.302, 1.65, 0.0, 22.5), (155.8, 151.5), (3.95, 4.5),
        ),
        "G": Mouse(
            (0.624, 2.04, 7.3), (3.03, 5.0, 7.16), -0.453, 0.927,
            (60.6, 12.1, 14.7, 92.2), (0.733, 2.63, 0.015, 26.7), (145.7, 124.9), (6.46, 7.66),
        ),
        "H": Mouse(
            (0.692, 1.71, 6.56), (3.23, 4.8, 6.93), -0.445, 0.991,
            (49.1, 17.2, 14.8, 92.1), (0.359, 1.86, 0.0, 18.9), (177.4, 148.0), (6.55, 5.75),
        ),
        "I": Mouse(
            (0.767, 2.22, 10.3), (3.07, 4.53, 6.34), -0.403, 0.895,
            (55.0, 17.1, 14.7, 91.4), (0.761, 3.09, 0.0, 29.0), (134.5, 144.5), (5.97, 5.54),
        ),
        "J": Mouse(
            (1.08, 3.27, 13.4), (3.09, 4.58, 6.5), -0.427, 0.868,
            (48.1, 13.0, 14.1, 87.0), (0.418, 1.94, 0.0, 24.8), (119.3, 145.5), (7.57, 4.86),
        ),
    }
)  # fmt: skip

# Of the standard normal distribution.
_QUANTILE_95 = 1.645


def draw_skewed(quantiles: tuple[float, float, float], normal: np.ndarray) -> np.ndarray:
    """Return values with these 5 %, 50 % and 95 % quantiles, normal in their logarithm on either side of the median.

    Parameters
    ----------
    quantiles : tuple of float
        Positive, ascending.
    normal : np.ndarray
        Standard normal values, one for each value to return, with which the values grow.
    """
    low, middle, high = np.log(quantiles)
    spread = np.where(normal < 0, middle - low, high - middle) / _QUANTILE_95
    return np.asarray(np.exp(middle + spread * normal))

"""The noise level as one axis that schedules of any length, shift or scheduler share: log-SNR."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SMALLEST = 1e-4

# Flow models start at sigma 1, infinitely far from all other steps on the axis of log-SNR; so far (a sigma of
# 0.999) the first step is still of use to the forecasts of the next ones.
FORECAST_SMALLEST = 1e-3
UNSEEN_NOISE = 0.01  # beside data of unit variance


def log_snr(sigmas: ArrayLike, prediction: str, smallest: float = _SMALLEST) -> NDArray[np.float64]:
    """Half the log signal-to-noise ratio, log(signal / noise), rising during sampling.

    prediction: "flow" (x = (1 - sigma) x0 + sigma noise), "epsilon" (x = x0 + sigma noise, and the model
    gives the noise) or "other" (the same x, and the model gives something else). smallest: sigma at which the
    axis is cut, for 0 and, for flow models, 1 lie at infinity.
    """
    sigma = np.asarray(sigmas, dtype=np.float64)
    if prediction == "flow":
        sigma = np.clip(sigma, smallest, 1 - smallest)
        return np.log((1 - sigma) / sigma)
    return -np.log(np.maximum(sigma, smallest))


def forecast_axis(sigmas: ArrayLike, prediction: str) -> NDArray[np.float64]:
    """On which the model's residual is continued as a polynomial, rising during sampling.

    It is log-SNR, measured on two flow models (docs/experiments.md). What predicts the noise sees little but
    noise in its first steps, and gives it back: the picture has a share of 1 / sigma in that output. So it is
    the angle between the two in the state, atan(sigma), which ends where log-SNR runs on.
    """
    if prediction == "epsilon":
        return -np.arctan(np.asarray(sigmas, dtype=np.float64))
    return log_snr(sigmas, prediction, FORECAST_SMALLEST)


def plan_axis(sigmas: ArrayLike, prediction: str) -> NDArray[np.float64]:
    """On which a plan measures how far steps are apart, rising during sampling: log-SNR that flattens where
    the noise is about one percent of the data. There the output hardly changes any more, while some
    schedulers (karras, beta) spend many steps on it."""
    sigma = np.asarray(sigmas, dtype=np.float64)
    ratio = sigma / np.maximum(1 - sigma, FORECAST_SMALLEST) if prediction == "flow" else sigma
    return -np.log(ratio + UNSEEN_NOISE)


def step_lengths(sigmas: ArrayLike, prediction: str) -> NDArray[np.float64]:
    """(N,) how far an error of the model's output moves the state in each step of N + 1 sigmas, the state
    being scaled to unit variance, as data are.

    The state moves by the output times the step in sigma. That of a flow model has unit variance as it is;
    x0 + sigma noise has 1 + sigma^2, and the integral of 1 / sqrt(1 + sigma^2) is asinh. Without it, the
    first steps of such a model, from sigma 157 to 129 and so on, would outweigh all others.
    """
    sigma = np.asarray(sigmas, dtype=np.float64)
    way = sigma if prediction == "flow" else np.arcsinh(sigma)
    return way[:-1] - way[1:]


def likely_prediction(sigmas: ArrayLike) -> str:
    """What a model of these sigmas predicts, where nobody says: those of flow models reach 1 at most."""
    return "flow" if np.max(sigmas) <= 1 else "other"


def positions(sigmas: ArrayLike, grid: ArrayLike, prediction: str) -> NDArray[np.float64]:
    """Where sigmas lie on another schedule's steps, as fractional step numbers, by interpolation in log-SNR.

    grid: the other schedule, descending. Sigmas beyond its ends get the number of its nearest end.
    """
    axis = log_snr(grid, prediction)
    return np.interp(log_snr(sigmas, prediction), axis, np.arange(len(axis), dtype=np.float64))

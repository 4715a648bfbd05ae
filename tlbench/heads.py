"""Heads: what is put on top of a backbone's pooled features. Each builder takes (features, classes).

The training-free ones are fitted by scikit-learn on frozen features. Their result is one linear layer, so that
evaluating and timing them is the same as for any other head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Head:
    """A row of the table."""

    summary: str
    build: Callable[[int, int], nn.Sequential]
    """(features, classes) -> a module that maps (N, features) to logits (N, classes)."""
    fit: Fit | None = None
    """Training-free: (features (n, d), labels (n,), the same for validation) -> weight (classes, d), bias."""


MLP_WIDTH = 512
DROPOUT = 0.2
SCALE = 16.0


def linear(features: int, classes: int) -> nn.Sequential:
    """One linear layer: features x classes + classes parameters."""
    from torch import nn

    return nn.Sequential(nn.Linear(features, classes))


def dropout_linear(features: int, classes: int) -> nn.Sequential:
    """Dropout before the linear layer, as most ImageNet heads have it."""
    from torch import nn

    return nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(features, classes))


def mlp(features: int, classes: int) -> nn.Sequential:
    """One hidden layer of `MLP_WIDTH` units with ReLU."""
    from torch import nn

    return nn.Sequential(nn.Linear(features, MLP_WIDTH), nn.ReLU(), nn.Linear(MLP_WIDTH, classes))


def cosine(features: int, classes: int) -> nn.Sequential:
    """Cosine similarity between features and class weights, times a learned scale (Gidaris 2018)."""
    from torch import nn

    from tlbench.layers import Cosine

    return nn.Sequential(Cosine(features, classes, SCALE))


def _nearest_mean(x: np.ndarray, y: np.ndarray, _x: np.ndarray, _y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centroid, as a linear layer: argmin ||x - m||^2 = argmax 2 m x - ||m||^2."""
    from sklearn.neighbors import NearestCentroid

    means = NearestCentroid().fit(x, y).centroids_
    return 2 * means, -(means**2).sum(1)


def _ridge(x: np.ndarray, y: np.ndarray, _x: np.ndarray, _y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression on one-hot targets, its strength chosen by leave-one-out on the training features."""
    import numpy as np
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=np.logspace(-3, 5, 17))
    fitted, unfold = _standardised(x)
    model.fit(fitted, np.eye(int(y.max()) + 1)[y])
    return unfold(model.coef_, model.intercept_)


def _logreg(x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression by L-BFGS, its C chosen on validation data (Kumar 2022)."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    fitted, unfold = _standardised(x)
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for strength in np.logspace(-4, 2, 7):
        model = LogisticRegression(C=float(strength), max_iter=1000).fit(fitted, y)
        coefficients, intercept = model.coef_, model.intercept_
        if len(coefficients) == 1:  # two classes share one row
            coefficients, intercept = (
                np.vstack([-coefficients, coefficients]) / 2,
                np.hstack([-intercept, intercept]) / 2,
            )
        weight, bias = unfold(coefficients, intercept)
        accuracy = float(((x_val @ weight.T + bias).argmax(1) == y_val).mean())
        if best is None or accuracy > best[0]:  # a tie goes to the stronger regularisation
            best = (accuracy, weight, bias)
    assert best is not None
    return best[1], best[2]


def _standardised(x: np.ndarray) -> tuple[np.ndarray, Callable[..., tuple[np.ndarray, np.ndarray]]]:
    """Features with mean 0 and deviation 1, and a function that rewrites a linear model on them for plain ones."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)

    def unfold(coefficients: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weight = coefficients / scaler.scale_
        return weight, intercept - weight @ scaler.mean_

    return scaler.transform(x), unfold


HEADS: dict[str, Head] = {
    "linear": Head(summary="one linear layer on the pooled features", build=linear),
    "dropout_linear": Head(summary=f"dropout of {DROPOUT} and a linear layer", build=dropout_linear),
    "mlp": Head(summary=f"a hidden layer of {MLP_WIDTH} units with ReLU, then a linear layer", build=mlp),
    "cosine": Head(summary="cosine similarity to a learned vector a class, with a learned scale", build=cosine),
    "nearest_mean": Head(
        summary="training-free: the nearest class mean (SimpleShot, Wang 2019)", build=linear, fit=_nearest_mean
    ),
    "ridge": Head(summary="training-free: ridge regression on one-hot targets", build=linear, fit=_ridge),
    "logreg": Head(
        summary="training-free: logistic regression by L-BFGS, C chosen on validation data (Kumar 2022)",
        build=linear,
        fit=_logreg,
    ),
}


def fit(name: str, *data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Fits a training-free head. Arguments and result as `Head.fit`."""
    fitted = HEADS[name].fit
    assert fitted is not None
    return fitted(*data)

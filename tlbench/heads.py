"""Heads: what is put on top of a backbone's pooled features. Each builder takes (features, classes).

The training-free ones are fitted by scikit-learn on frozen features. Their result is one linear layer, so that
evaluating and timing them is the same as for any other head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tlbench.errors import NotApplicable

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], "Fitted"]


@dataclass(frozen=True, kw_only=True)
class Head:
    """Describes a head: a row of the table."""

    summary: str
    build: Callable[[int, int], nn.Sequential]
    """(features, classes) -> a module that maps (N, features) to logits (N, classes)."""
    fit: Fit | None = None
    """Training-free: (features (n, d), labels (n,), the same for validation) -> one linear layer."""


MLP_WIDTH = 512
DROPOUT = 0.2
SCALE = 16.0
RIDGE_ALPHAS = tuple(10 ** (power / 2) for power in range(-6, 11))
LOGREG_CS = tuple(10.0**power for power in range(-4, 3))
LOGREG_STEPS = 1000


def linear(features: int, classes: int) -> nn.Sequential:
    """Builds one linear layer: features x classes + classes parameters."""
    from torch import nn

    return nn.Sequential(nn.Linear(features, classes))


def dropout_linear(features: int, classes: int) -> nn.Sequential:
    """Builds dropout before a linear layer, as most ImageNet heads have it."""
    from torch import nn

    return nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(features, classes))


def mlp(features: int, classes: int) -> nn.Sequential:
    """Builds one hidden layer of `MLP_WIDTH` units with ReLU, then a linear layer."""
    from torch import nn

    return nn.Sequential(nn.Linear(features, MLP_WIDTH), nn.ReLU(), nn.Linear(MLP_WIDTH, classes))


def cosine(features: int, classes: int) -> nn.Sequential:
    """Builds a cosine similarity to a weight for each class, times a learned scale (Gidaris 2018)."""
    from torch import nn

    from tlbench.backbones.layers import Cosine

    return nn.Sequential(Cosine(features, classes, SCALE))


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Holds a training-free head as one linear layer."""

    weight: np.ndarray
    """(classes, features)"""
    bias: np.ndarray
    """(classes,)"""
    chosen: Mapping[str, float] = field(default_factory=dict)
    """What was picked from data: ``alpha`` or ``C``."""


def _nearest_mean(x: np.ndarray, y: np.ndarray, _x: np.ndarray, _y: np.ndarray) -> Fitted:
    """Fits the nearest centroid. With m and x measured from the mean of all, argmin ||x - m||^2 = argmax 2 m x -
    ||m||^2; the large part that all classes share, and that would cost precision, is gone.
    """
    import warnings

    import numpy as np
    from sklearn.neighbors import NearestCentroid

    centre = x.mean(0)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # It looks at deviations as well. Those of a class of one image, or of a feature that is 0 for a whole class
        # (after a ReLU), are no concern of a mean.
        warnings.filterwarnings("ignore", message=".*zero standard deviation", category=UserWarning)
        means = NearestCentroid().fit(x, y).centroids_ - centre
    return Fitted(weight=2 * means, bias=-(means**2).sum(1) - 2 * means @ centre)


def _ridge(x: np.ndarray, y: np.ndarray, _x: np.ndarray, _y: np.ndarray) -> Fitted:
    """Fits ridge regression on one-hot targets, its strength chosen by leave-one-out on the training features."""
    import numpy as np
    from sklearn.linear_model import RidgeCV

    scaler, scaled = _standardised(x)
    model = RidgeCV(alphas=RIDGE_ALPHAS).fit(scaled, np.eye(int(y.max()) + 1)[y])
    return _unfold(scaler, model.coef_, model.intercept_, {"alpha": float(model.alpha_)})


def _logreg(x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray) -> Fitted:
    """Fits logistic regression by L-BFGS, its C chosen on validation data (Kumar 2022); the smaller C decides a tie."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    scaler, scaled = _standardised(x)
    scaled_val = scaler.transform(x_val)
    models = [LogisticRegression(C=strength, max_iter=LOGREG_STEPS).fit(scaled, y) for strength in LOGREG_CS]
    best = max(models, key=lambda model: (model.score(scaled_val, y_val), -model.C))
    coefficients, intercept = best.coef_, best.intercept_
    if len(coefficients) == 1:  # two classes share one row
        coefficients = np.vstack([-coefficients, coefficients]) / 2
        intercept = np.hstack([-intercept, intercept]) / 2
    return _unfold(scaler, coefficients, intercept, {"C": float(best.C)})


def _standardised(x: np.ndarray) -> tuple[Any, np.ndarray]:
    """Returns a scaler, and features (n, d) with mean 0 and deviation 1."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    return scaler, scaler.transform(x)


def _unfold(scaler: Any, coefficients: np.ndarray, intercept: np.ndarray, chosen: Mapping[str, float]) -> Fitted:
    """Rewrites a linear model on standardised features for plain ones."""
    weight = coefficients / scaler.scale_
    return Fitted(weight=weight, bias=intercept - weight @ scaler.mean_, chosen=chosen)


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


def fit(name: str, x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray) -> Fitted:
    """Fits a training-free head to features (n, d) and labels (n,), and the same for validation.

    Errors: NotApplicable when a class has no training image.
    """
    fitted = HEADS[name].fit
    assert fitted is not None
    if missing := sorted(set(range(int(max(y.max(), y_val.max())) + 1)) - set(y.tolist())):
        raise NotApplicable(f"the head {name} needs a training image of every class, and class {missing[0]} has none")
    return fitted(x, y, x_val, y_val)

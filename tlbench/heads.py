"""Heads: what is put on top of a backbone's pooled features. Each builder takes (features, classes).

The training-free ones are fitted on frozen features, by scikit-learn where it can. Their result is a linear layer, so
that evaluating and timing them is the same as for any other head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
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
    """Training-free: (features (n, d), labels (n,), the same for validation) -> what the built module's last layer, a
    linear one, is to hold."""
    fit_balanced: Fit | None = None
    """The same, an image's loss weighed by n / (k * count of its class); None where that is not defined."""
    unbalanced: str = ""
    """Says why that is not defined, after "since"."""
    chooses: str = ""
    """What the fit chooses by its accuracy on the validation images; empty where it chooses nothing by them."""
    departs: str = ""
    """Where it departs from the source that it is named after; empty where it does not."""
    version: int = 1
    """Counts the meanings that the name has had, as `tlbench.policies.base.Policy.version` does."""


SHORTEST = 1e-12
"""Least length that features are divided by, as in torch's `normalize`."""
PROPORTIONAL = 0.1
"""Up to this C times images, the weights of logistic regression grow with C."""
MLP_WIDTH = 512
DROPOUT = 0.2
SCALE = 16.0
RIDGE_ALPHAS = tuple(10 ** (power / 2) for power in range(-6, 11))
LOGREG_CS = tuple(10 ** (-7 + 9 * step / 99) for step in range(100))
"""The range of Kumar 2022's code: 100 values from 1e-7 to 100."""
LOGREG_STEPS = 1000
PATH_TOLERANCE = 1e-3
"""Largest gradient at which a value of the path counts as fitted; the chosen one is fitted to scikit-learn's own."""


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
    """Builds a cosine similarity to a weight for each class, times a learned scale that starts at 16 (Gidaris 2018: at
    10).
    """
    from torch import nn

    from tlbench.backbones.layers import Cosine

    return nn.Sequential(Cosine(features, classes, SCALE))


def exact_linear(features: int, classes: int) -> nn.Sequential:
    """Builds one linear layer that computes in 32 bits whatever the precision."""
    from torch import nn

    from tlbench.backbones.layers import ExactLinear

    return nn.Sequential(ExactLinear(features, classes))


def centred(features: int, classes: int) -> nn.Sequential:
    """Builds a linear layer on features that are measured from a centre and have length 1."""
    from torch import nn

    from tlbench.backbones.layers import CentredUnit, ExactLinear

    return nn.Sequential(CentredUnit(features), ExactLinear(features, classes))


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Holds what a training-free head's linear layer takes."""

    weight: np.ndarray
    """(classes, features)"""
    bias: np.ndarray
    """(classes,)"""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """What was picked from data: ``alpha`` or ``C``, and ``edge`` where that C is the least or the largest of all."""
    centre: np.ndarray | None = None
    """(features,): what the head's first layer measures the features from, where it does."""


def _nearest_mean(x: np.ndarray, y: np.ndarray, _x: np.ndarray, _y: np.ndarray) -> Fitted:
    """Fits the nearest class mean of centred features of length 1 (SimpleShot's CL2N), centred by the mean of these
    training features (there of the base classes').

    The mean m of a class is not brought to length 1 again, as there: argmin ||z - m||^2 = argmax 2 m z - ||m||^2.
    """
    import numpy as np

    centre = x.mean(0)
    z = x - centre
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), SHORTEST)
    means = np.stack([z[y == label].mean(0) for label in range(int(y.max()) + 1)])
    return Fitted(weight=2 * means, bias=-(means**2).sum(1), centre=centre)


def _ridge(x: np.ndarray, y: np.ndarray, _x: np.ndarray, _y: np.ndarray, balanced: bool = False) -> Fitted:
    """Fits ridge regression on one-hot targets, its strength chosen by leave-one-out on the training features; both by
    weighed squares where they are ``balanced``. The features are standardised as they are.
    """
    import numpy as np
    from sklearn.linear_model import RidgeCV

    scaler, scaled = _standardised(x)
    weights = len(y) / (len(set(y.tolist())) * np.bincount(y))[y] if balanced else None
    model = RidgeCV(alphas=RIDGE_ALPHAS).fit(scaled, np.eye(int(y.max()) + 1)[y], weights)
    return _unfold(scaler, model.coef_, model.intercept_, {"alpha": float(model.alpha_)})


def _logreg(x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray, balanced: bool = False) -> Fitted:
    """Fits logistic regression by L-BFGS, its C chosen on validation data (Kumar 2022), on features standardised one by
    one (there by one mean and deviation for all), and the chosen C to convergence (there in at most 20 steps).

    As there, 100 values are tried from the strongest regularisation on, each from where the one before ended; the
    smaller C decides a tie. Where it is ``balanced``, an image's loss is weighed by its class; the accuracy by
    which C is chosen is not.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    scaler, scaled = _standardised(x)
    weighed: dict[str, Any] = {"class_weight": "balanced"} if balanced else {}
    scores = _scores_along_the_path(scaled, y, scaler.transform(x_val), y_val, weighed)
    place = max(range(len(LOGREG_CS)), key=lambda index: (scores[index], -index))
    best = LogisticRegression(C=LOGREG_CS[place], max_iter=LOGREG_STEPS, **weighed).fit(scaled, y)
    coefficients, intercept = best.coef_, best.intercept_
    if len(coefficients) == 1:  # two classes share one row
        coefficients = np.vstack([-coefficients, coefficients]) / 2
        intercept = np.hstack([-intercept, intercept]) / 2
    chosen: dict[str, Any] = {"C": LOGREG_CS[place]}
    if place in (0, len(LOGREG_CS) - 1):
        chosen["edge"] = "largest C" if place else "least C"
    return _unfold(scaler, coefficients, intercept, chosen)


def _scores_along_the_path(
    z: np.ndarray, y: np.ndarray, z_val: np.ndarray, y_val: np.ndarray, weighed: Mapping[str, Any]
) -> list[float]:
    """Returns the validation accuracy of each value of C, from standardised features (n, d). ``weighed`` says how
    classes count, as scikit-learn takes it.

    A fit starts where the one before ended, moved on as far as the last one moved: in the logarithm of C, or in C
    itself where the weights are proportional to it. Together the 100 take fewer steps than 7 from nothing.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    scores: list[float] = []
    model = LogisticRegression(warm_start=True, max_iter=LOGREG_STEPS, **weighed)
    ended: list[np.ndarray] = []  # weights and intercepts (rows, d + 1) of the last two fits
    for strength in LOGREG_CS:
        # Where the penalty is most of it, the first step would be far too long: so the features are shrunk instead.
        shrink = min(1.0, (strength * len(z)) ** 0.5)
        model.set_params(C=strength / shrink**2, tol=PATH_TOLERANCE * shrink)
        goes_on = len(ended) > 1 and bool(model.n_iter_[0])
        if ended:
            start = ended[-1]
            if goes_on:
                growth = LOGREG_CS[1] / LOGREG_CS[0] if strength * len(z) < PROPORTIONAL else 1.0
                start = start + growth * (ended[-1] - ended[-2])
            model.coef_, model.intercept_ = start[:, :-1] / shrink, start[:, -1].copy()
        model.fit(z * shrink, y)
        ended = [*ended[-1:], np.hstack([model.coef_ * shrink, model.intercept_[:, None]])]
        model.coef_ = ended[-1][:, :-1]
        same = bool(scores) and not goes_on and not model.n_iter_[0]
        scores.append(scores[-1] if same else float(model.score(z_val, y_val)))
    return scores


def _standardised(x: np.ndarray) -> tuple[Any, np.ndarray]:
    """Returns a scaler, and features (n, d) with mean 0 and deviation 1."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    return scaler, scaler.transform(x)


def _unfold(scaler: Any, coefficients: np.ndarray, intercept: np.ndarray, chosen: Mapping[str, Any]) -> Fitted:
    """Rewrites a linear model on standardised features for plain ones."""
    weight = coefficients / scaler.scale_
    return Fitted(weight=weight, bias=intercept - weight @ scaler.mean_, chosen=chosen)


HEADS: dict[str, Head] = {
    "linear": Head(summary="one linear layer on the pooled features", build=linear),
    "dropout_linear": Head(summary=f"dropout of {DROPOUT} and a linear layer", build=dropout_linear),
    "mlp": Head(summary=f"a hidden layer of {MLP_WIDTH} units with ReLU, then a linear layer", build=mlp),
    "cosine": Head(
        summary="cosine similarity to a learned vector a class, with a learned scale (Gidaris 2018)",
        build=cosine,
        departs=f"the scale starts at {SCALE:g}; there at 10",
    ),
    "nearest_mean": Head(
        summary="training-free: the nearest class mean of centred features of length 1 (SimpleShot's CL2N, Wang 2019)",
        build=centred,
        fit=_nearest_mean,
        departs="centred by the training images' own mean; there by the base classes'",
        version=2,
        unbalanced="each class has a mean of its own, whatever the number of its images",
    ),
    "ridge": Head(
        summary="training-free: ridge regression on one-hot targets",
        build=exact_linear,
        fit=_ridge,
        fit_balanced=partial(_ridge, balanced=True),
    ),
    "logreg": Head(
        summary="training-free: logistic regression by L-BFGS, C of 100 chosen on validation data (Kumar 2022)",
        build=exact_linear,
        fit=_logreg,
        fit_balanced=partial(_logreg, balanced=True),
        chooses="C",
        departs="features standardised one by one, the chosen C fitted to convergence",
        version=2,
    ),
}


def fit(
    name: str, x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray, class_weights: str = "none"
) -> Fitted:
    """Fits a training-free head to features (n, d) and labels (n,), and the same for validation, with the weights of
    classes that the axis names.

    Errors: NotApplicable when a class has no training image, or the head is not defined with such weights.
    """
    check_class_weights(name, class_weights)
    fitted = HEADS[name].fit_balanced if class_weights == "balanced" else HEADS[name].fit
    assert fitted is not None
    if missing := sorted(set(range(int(max(y.max(), y_val.max())) + 1)) - set(y.tolist())):
        raise NotApplicable(f"the head {name} needs a training image of every class, and class {missing[0]} has none")
    return fitted(x, y, x_val, y_val)


def check_class_weights(name: str, class_weights: str) -> None:
    """Raises NotApplicable where a training-free head is not defined with weights of classes."""
    head = HEADS[name]
    if class_weights != "none" and head.fit_balanced is None:
        why = head.unbalanced or "its row in the table of heads has no fit with weights"
        raise NotApplicable(f"the head {name} knows no class weights, since {why}: leave --class-weights out")

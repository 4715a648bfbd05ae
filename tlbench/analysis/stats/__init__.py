"""What repeated measurements allow one to say: intervals, comparisons, ranks with ties, the Pareto front.

The unit is the block or the seed, never the round: rounds of one block share its drift. Times and ratios are treated
on the log scale, where their noise is symmetric; accuracies on their own. One value has no spread, so everything here
says "cannot say" (None) for it, never an interval of width zero. Values must be finite: leave failed blocks out first.
"""

from tlbench.analysis.stats.accuracy import Scores, accuracy_interval, counted, images_interval, surely_above
from tlbench.analysis.stats.best import Against, Pairs, against_the_best, all_pairs
from tlbench.analysis.stats.change import ROUNDING, Outcome, Verdict, verdict
from tlbench.analysis.stats.crossings import Crossed, crossing
from tlbench.analysis.stats.estimate import (
    MOST,
    Estimate,
    Gated,
    Spread,
    paired_estimate,
    runs_estimate,
    unrelated_estimate,
)
from tlbench.analysis.stats.floor import (
    PRIOR_FREEDOM,
    USELESS,
    Mood,
    NoiseFloor,
    Prior,
    contrasts,
    filled_up,
    noise_floor,
)
from tlbench.analysis.stats.front import Pareto, Position, pareto
from tlbench.analysis.stats.intervals import (
    COMPARISONS,
    Discordance,
    alternated_ratio,
    block_ratios,
    difference_of,
    geometric_mean,
    holm,
    log_interval,
    mcnemar,
    mean_interval,
    paired_difference,
    paired_ratio,
    ratio_of,
    wilson,
)
from tlbench.analysis.stats.ranks import Ranked, Standing, rank
from tlbench.analysis.stats.splits import SplitGap, splits_differ
from tlbench.analysis.stats.student import (
    ANYTHING,
    CONFIDENCE,
    WIDEST,
    Comparison,
    Interval,
    exact,
    exp,
    ratio_interval,
    says_nothing,
    t_quantile,
)

__all__ = [
    "ANYTHING",
    "COMPARISONS",
    "CONFIDENCE",
    "MOST",
    "PRIOR_FREEDOM",
    "ROUNDING",
    "USELESS",
    "WIDEST",
    "Against",
    "Comparison",
    "Crossed",
    "Discordance",
    "Estimate",
    "Gated",
    "Interval",
    "Mood",
    "NoiseFloor",
    "Outcome",
    "Pairs",
    "Pareto",
    "Position",
    "Prior",
    "Ranked",
    "Scores",
    "SplitGap",
    "Spread",
    "Standing",
    "Verdict",
    "accuracy_interval",
    "against_the_best",
    "all_pairs",
    "alternated_ratio",
    "block_ratios",
    "contrasts",
    "counted",
    "crossing",
    "difference_of",
    "exact",
    "exp",
    "filled_up",
    "geometric_mean",
    "holm",
    "images_interval",
    "log_interval",
    "mcnemar",
    "mean_interval",
    "noise_floor",
    "paired_difference",
    "paired_estimate",
    "paired_ratio",
    "pareto",
    "rank",
    "ratio_interval",
    "ratio_of",
    "runs_estimate",
    "says_nothing",
    "splits_differ",
    "surely_above",
    "t_quantile",
    "unrelated_estimate",
    "verdict",
    "wilson",
]

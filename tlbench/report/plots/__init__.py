"""The figures of a report: each takes a tidy frame (`tlbench.load`) or a summary and returns a matplotlib Figure."""

from __future__ import annotations

import tlbench.report.plots.library  # noqa: F401 - before whatever imports matplotlib
from tlbench.report.plots.accuracy import accuracy_against_cost, accuracy_against_parameters, heat_map, learning_curves
from tlbench.report.plots.classes import confusion, reliability
from tlbench.report.plots.elsewhere import accuracy_elsewhere
from tlbench.report.plots.labelled import label_efficiency, words
from tlbench.report.plots.look import Plot
from tlbench.report.plots.speed import (
    freeze_efficiency,
    latency,
    speedup,
    throughput,
    throughput_against_batch_size,
)
from tlbench.report.plots.time import ceiling, noise, step_time

PLOTS: dict[str, Plot] = {
    "accuracy_against_cost": Plot(
        title="Accuracy against training time",
        caption="Up and to the left is better. The steps join the cells that no other beats in both, of those that "
        "learned something; a ring is round those that stay unbeaten wherever in their intervals they lie. The dotted "
        "line, where it is in sight, is what knowing nothing scores: the share of the most frequent class, or chance. "
        "Bars are 95 % intervals: of times over seeds or blocks, of accuracies as the notes say; one that leaves the "
        "panel is wider.",
        draw=accuracy_against_cost,
    ),
    "accuracy_against_parameters": Plot(
        title="Accuracy against trainable parameters",
        caption="Few trainable parameters need not mean little work: gradients may still pass through the whole "
        "backbone. The table has the times. The dotted line, where it is in sight, is what knowing nothing scores.",
        draw=accuracy_against_parameters,
    ),
    "heat_map": Plot(
        title="Accuracy by backbone and policy",
        caption="Test accuracy in percent; of one policy, by head or data set. n/a: means nothing for this backbone; "
        "skip: something was missing; fail, oom, time, div, stop: failed, out of memory, timed out, diverged, "
        "interrupted; –: not in the grid; *: the best of several settings by validation accuracy. Of several "
        "train sizes the largest is shown.",
        draw=heat_map,
    ),
    "confusion": Plot(
        title="What is taken for what",
        caption="Of the cell that is best on validation images, on test images, all seeds together: a row holds the "
        "images of a class, a column what they were taken for, right ones on the diagonal. The deeper the colour, the "
        "larger the share of the class. Of many classes those that are most often mistaken have names; the whole has "
        "classes that are taken for each other side by side. The section of a cell says it in words.",
        draw=confusion,
    ),
    "reliability": Plot(
        title="Is a confidence worth what it says?",
        caption="Of the same cell: the share of answers that is right, for answers of each confidence (15 bins). On "
        "the line a confidence is what it says; below it the model is too sure. ECE: the mean distance from the line, "
        "weighted by answers. NLL: the mean negative log-likelihood of the true class, in nats.",
        draw=reliability,
    ),
    "label_efficiency": Plot(
        title="Accuracy against labelled images",
        caption="Test accuracy by the number of training images (--train-size), on a logarithmic scale: further left, "
        "fewer labels. Bands are 95 % intervals over images and seeds. A cross marks where two policies cross, on the "
        "lines as drawn, with its 95 % interval; each pair by itself. Validation images, by which things are chosen, "
        "are labelled as well and not counted.",
        draw=label_efficiency,
        words=words,
    ),
    "elsewhere": Plot(
        title="Accuracy elsewhere",
        caption="On another data set, or the mean over corruptions of the test images, against the accuracy on the "
        "test images. On the dotted line both are the same; what lies further below it loses more elsewhere. Nothing "
        "is chosen by it. Bars are 95 % intervals.",
        draw=accuracy_elsewhere,
    ),
    "learning_curves": Plot(
        title="Learning curves",
        caption="Validation accuracy after each epoch, the mean over seeds, against the time spent training.",
        draw=learning_curves,
    ),
    "speedup": Plot(
        title="Speed-up",
        caption="Ratio of times of matched cells, which differ in the device or precision alone. Bars are 95 % "
        "intervals over blocks or seeds; right of the line is faster.",
        draw=speedup,
    ),
    "freeze_efficiency": Plot(
        title="What freezing buys",
        caption="How many times as fast as full an epoch's FLOPs promise each policy to be, and how many times as fast "
        "it is. On the line the promise is kept; below the dotted one, which is at nine tenths of it, something that "
        "FLOPs do not count takes the time.",
        draw=freeze_efficiency,
    ),
    "throughput": Plot(
        title="Throughput", caption="Further right is faster. Inference does not depend on the policy.", draw=throughput
    ),
    "throughput_against_batch_size": Plot(
        title="Throughput against batch size",
        caption="Where the line is flat, a larger batch only costs memory.",
        draw=throughput_against_batch_size,
    ),
    "latency": Plot(
        title="Latency of one image",
        caption="The mark is the median, the bar the middle half; the line goes from the 5th to the 95th percentile.",
        draw=latency,
    ),
    "step_time": Plot(
        title="Where a step's time goes",
        caption="Of the first phase; the whole step's time stands beside the name. A mean over heads and settings.",
        draw=step_time,
    ),
    "ceiling": Plot(
        title="Share of the ceiling",
        caption="The ceiling is what a large matrix product reaches in the same precision and number of threads. "
        "The kernels of a convolution can come closer to the processor's peak than it does: a share may exceed 100 %.",
        draw=ceiling,
    ),
    "noise": Plot(
        title="Noise of the timed rounds",
        caption="A spread, not an interval: rounds of one cell share the machine's mood. Crosses are flagged records.",
        draw=noise,
    ),
}

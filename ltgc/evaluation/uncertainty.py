"""How sure a difference between two methods is: training seeds and test images both count.

The margin is half of the 95 % interval of the mean difference. Its variance has two terms: that of the difference
over the training seeds, divided by their number, and that over bootstrap resamples of the test images, drawn class
by class and the same for both methods. Degrees of freedom are Welch and Satterthwaite's, the resamples' infinite.
What another set of drawings would change is in neither term.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ltgc.pipeline.artifacts.runs import ClassAccuracy

CONFIDENCE = 0.95
POWER = 0.8
RESAMPLES = 1000

Scores = dict[str, NDArray[np.float64]]  # metric -> (resamples, runs), in percent


def resampled_scores(
    correct: NDArray[np.bool_], labels: NDArray[np.int64], classes: Sequence[ClassAccuracy]
) -> Scores:
    """Test metrics on resampled test images; as many of each class as there are.

    correct: (runs, images), whether each run is right; labels: (images,). All runs see the same resamples, and the
    same arguments give the same ones. Calibration is left out: its plug-in estimate is biased on resamples.
    """
    rng = np.random.default_rng(0)
    shape = RESAMPLES, len(correct)
    right, inverse, worst = np.zeros(shape), np.zeros(shape), np.ones(shape)
    groups = {shot: np.zeros(shape) for shot in dict.fromkeys(c.shot for c in classes)}
    for c in classes:
        of_class = correct[:, labels == c.label]
        images = of_class.shape[1]
        counts = rng.multinomial(images, np.full(images, 1 / images), RESAMPLES)  # (resamples, images)
        hits = counts @ of_class.T  # (resamples, runs)
        accuracy = hits / images
        right += hits
        groups[c.shot] += accuracy
        with np.errstate(divide="ignore"):
            inverse += 1 / accuracy
        worst = np.minimum(worst, accuracy)
    sizes = {shot: sum(c.shot == shot for c in classes) for shot in groups}
    fractions = {"all": right / len(labels), "harmonic_mean": len(classes) / inverse, "worst_class": worst}
    fractions |= {shot: total / sizes[shot] for shot, total in groups.items()}
    return {metric: 100 * values for metric, values in fractions.items()}


def image_std(
    runs: Mapping[str, NDArray[np.bool_]],
    labels: NDArray[np.int64],
    classes: Sequence[ClassAccuracy],
    reference: str,
) -> dict[str, dict[str, float]]:
    """method -> metric -> standard deviation, over resampled test images, of its mean difference to `reference`.

    runs: method -> (seeds, images), whether each seed's run is right. In points.
    """
    scores = resampled_scores(np.concatenate(list(runs.values())), labels, classes)
    ends = np.cumsum([len(correct) for correct in runs.values()])[:-1]
    means = {
        metric: dict(zip(runs, (own.mean(axis=1) for own in np.split(values, ends, axis=1)), strict=True))
        for metric, values in scores.items()
    }
    return {
        method: {metric: float((mean[method] - mean[reference]).std()) for metric, mean in means.items()}
        for method in runs
        if method != reference
    }


def margin(std: float, seeds: int, image_std: float = 0.0) -> float | None:
    """Half of the interval of a mean difference, in its unit; None with one seed, which has no spread.

    std: sample standard deviation of the difference over `seeds`; image_std: over resampled test images.
    """
    if seeds < 2:
        return None
    from scipy.stats import t  # 0.5 s to import, which the report does without

    of_seeds, of_images = std**2 / seeds, image_std**2
    variance = of_seeds + of_images
    freedom = variance**2 / (of_seeds**2 / (seeds - 1)) if of_seeds else np.inf
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom) * variance**0.5)


def detectable(margins: Sequence[float]) -> float:
    """The true difference that is found in POWER of all repetitions, for a typical margin (normal theory)."""
    from scipy.stats import norm

    return float(np.median(margins) * (1 + norm.ppf(POWER) / norm.ppf((1 + CONFIDENCE) / 2)))

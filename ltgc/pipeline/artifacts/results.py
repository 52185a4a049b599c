"""What compare, loops, quality and report write: metrics, plots and the page."""

from pathlib import Path

COMPARE = Path("metrics/compare.json")
PAIRED = Path("metrics/paired.json")
COMPARE_PLOT = Path("plots/compare.csv")
PER_CLASS_PLOT = Path("plots/per_class.csv")
LOOPS = Path("metrics/loops.json")
COST = Path("metrics/cost.json")
SCORES_PLOT = Path("plots/scores.csv")
COST_PLOT = Path("plots/cost.csv")
QUALITY = Path("metrics/quality.json")
FIG6 = Path("plots/fig6.png")
FIG7 = Path("plots/fig7.png")
REPORT = Path("report/index.html")

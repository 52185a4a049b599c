"""The embedded CLIP against another one, side by side: what it sees, what it costs.

    git archive 748ce07 embedded/clip | tar x -C /tmp    # the one before, 64 tokens
    python benchmarks/embedded_clip.py /tmp/embedded/clip embedded/clip      # about 4 minutes on two cores

All images are drawn afresh, with seeds that no data set uses. Zero-shot and the probes: photos of the species, 40
a class. Features: photos and paintings of random flowers, each feature asked for by itself, as the embedded vision
model does. Filter: paintings that the species could show, against paintings with one feature that it never shows
(the hardest kind of wrong), each held against the class's template. Cost: CPU time of forward and backward.
"""

import sys
import time
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import open_clip
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from embedded import words
from embedded.captions import OPTIONS, codes, near_neighbour, random_flower
from embedded.eyes import Eyes
from embedded.wildflowers import Species, load_species
from embedded.wildflowers.dataset import training_flower
from embedded.wildflowers.draw import draw
from embedded.wildflowers.flower import Flower

SEED = 20_260
A_CLASS, SHOTS, RANDOM, ROUNDS, BATCH = 40, 5, 2000, 6, 64
SPECIES = load_species(ROOT / "embedded/wildflowers")
LABELS = torch.arange(len(SPECIES)).repeat_interleave(A_CLASS)
FEW = torch.tensor([species.train < 20 for species in SPECIES])[LABELS]


@cache
def drawings(what: str) -> tuple[list[Flower], list]:
    """Flowers and their images; the same for every model."""
    rng = np.random.default_rng([SEED, *what.encode()])
    style = "photo" if what in ("photos", "learn", "few shots", "random photos") else "painted"
    flowers = [random_flower(rng) for _ in range(RANDOM)] if "random" in what else [
        one_of(species, what, rng) for species in SPECIES for _ in range(SHOTS if what == "few shots" else A_CLASS)
    ]  # fmt: skip
    return flowers, [draw(flower, rng, style) for flower in flowers]


def one_of(species: Species, what: str, rng: np.random.Generator) -> Flower:
    if what == "few shots":  # as the training split has them: of rare species one variant only
        return training_flower(species, rng)
    flower = species.sample(rng)
    while what == "wrong" and species.shows(flower):
        flower = near_neighbour(species.sample(rng), rng)
    return flower


def template(species: Species, rng: np.random.Generator) -> str:
    values = {axis: max(options, key=options.__getitem__) for axis, options in species.features.items()}
    return f"A photo of the class {species.name} with {words.put(values, rng)}."


def auroc(right: Tensor, wrong: Tensor) -> float:
    above = (right[:, None] > wrong).double() + 0.5 * (right[:, None] == wrong)
    return above.mean().item()


def probe(learn: Tensor, images: Tensor) -> float:
    """Accuracy of multinomial logistic regression on frozen features; the best of three penalties."""
    labels = torch.arange(len(SPECIES)).repeat_interleave(len(learn) // len(SPECIES))
    best = 0.0
    for penalty in (1e-4, 1e-3, 1e-2):
        head = torch.nn.Linear(learn.shape[1], len(SPECIES))
        optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def closure(head=head, optimizer=optimizer, penalty=penalty) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(head(learn), labels) + penalty * head.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        best = max(best, (head(images).argmax(1) == LABELS).double().mean().item())
    return best


def scores(folder: Path) -> dict[str, float]:
    eyes = Eyes(folder)
    model = eyes.model

    @torch.no_grad()
    def features(what: str) -> Tensor:
        pixels = torch.stack([eyes.preprocess(image) for image in drawings(what)[1]])
        return torch.cat([model.encode_image(some, normalize=True) for some in pixels.split(256)])

    @torch.no_grad()
    def texts(all_texts: list[str]) -> Tensor:
        return model.encode_text(eyes.tokenize(all_texts), normalize=True)

    def share(hits: Tensor) -> float:
        return hits.double().mean().item()

    rng = np.random.default_rng(SEED)
    photos, templates = features("photos"), texts([template(s, rng) for s in SPECIES])
    hits = (photos @ templates.T).argmax(1) == LABELS
    names = texts([f"A photo of the class {s.name}." for s in SPECIES])
    result = {
        "zero-shot, templates": share(hits),
        "    of the rarest classes": share(hits[FEW]),
        "zero-shot, bare names": share((photos @ names.T).argmax(1) == LABELS),
        "linear probe, 40 photos a class": probe(features("learn") * 10, photos * 10),
        "linear probe, 5 photos a class": probe(features("few shots") * 10, photos * 10),
    }
    for what in ("random photos", "random paintings"):
        flowers, images = drawings(what)
        truth = np.array([codes(flower) for flower in flowers])
        seen = np.array([codes(eyes.look(image)) for image in images])
        for i, axis in enumerate(OPTIONS):
            drawn = truth[:, i] >= 0
            result[f"{what.split()[1]}, {axis}"] = float((truth == seen)[drawn, i].mean())
    right, wrong = features("right"), features("wrong")
    for name, vectors in (("right", right), ("wrong", wrong)):
        cosines = (vectors @ templates.T).gather(1, LABELS[:, None])
        result[f"filter, {name} ones at a cosine of 0.3 or more"] = share(cosines >= 0.3)
    scale = model.logit_scale.exp().item()
    for name, of in (
        ("cosine", lambda x: x @ templates.T),
        ("margin", lambda x: (scale * x @ templates.T).log_softmax(1)),
    ):
        at = LABELS[:, None]
        result[f"filter AUROC, {name}"] = auroc(
            of(right).gather(1, at).flatten(), of(wrong).gather(1, at).flatten()
        )
    return result


def step_times(folders: list[Path]) -> list[float]:
    """CPU seconds of one forward and backward of the image tower, fp32, the best of ROUNDS that take turns."""
    towers = [open_clip.create_model(f"local-dir:{folder}").visual for folder in folders]
    best = [float("inf")] * len(towers)
    pixels = torch.rand(BATCH, 3, 64, 64)
    for _ in range(ROUNDS):
        for i, tower in enumerate(towers):
            start = time.process_time()
            tower(pixels).sum().backward()
            best[i] = min(best[i], time.process_time() - start)
    return best


def main() -> None:
    torch.set_num_threads(1)
    folders = [Path(argument) for argument in sys.argv[1:]]
    table = Table("", *map(str, folders))
    results = [scores(folder) for folder in folders]
    for row in results[0]:
        table.add_row(row, *(f"{100 * result[row]:.1f}" for result in results))
    times = step_times(folders)
    table.add_row("images/s, forward and backward", *(f"{BATCH / seconds:.0f}" for seconds in times))
    table.add_row("time, of the first", *(f"{seconds / times[0]:.2f}" for seconds in times))
    Console(width=115).print(table)


if __name__ == "__main__":
    main()

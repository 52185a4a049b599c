"""The bill before it is paid: calls, tokens and money of each stage, from the manifest and params.yaml alone.

    dvc repro prepare    # makes the manifest; no model is asked
    ltgc estimate        # no model is asked here either

Prompts are built with the words of prompts/*.txt, so their length is known; that of the replies is assumed
by the constants below. docs/sharing.md compares an estimate with what a run really used.
"""

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table

from graphs import feedback, prompts, reflect
from graphs.parse import repeats
from ltgc.clients import drawing_tokens
from ltgc.clients.budget import Budget
from ltgc.clients.costs import Cost, priced
from ltgc.clients.shared_store import stored
from ltgc.commands import gpu_hours
from ltgc.evaluation.asking import images_wanted
from ltgc.pipeline import files, params
from ltgc.pipeline.artifacts.dataset import CLASSES, ClassRecord
from ltgc.pipeline.errors import LTGCError
from ltgc.pipeline.params import Params
from ltgc.pipeline.settings.servers import ChatSettings, Price
from ltgc.pipeline.terminal import output

CHARACTERS_A_TOKEN = 4  # of English, with the tokenisers of today's models
# A description in Template 1: "A photo of the class [y], {...}{...}.": 100 to 130 characters with most models.
DESCRIPTION = 110  # characters, the class's name left out
TEMPLATE = 100  # characters of a class feature template's features
# A reply that is not in the template is asked for again; with a good model that is one image in twenty.
REPLIES_AN_IMAGE = 1.05
# The fraction of the descriptions of a round that is in the template, new and of the class. Models of GPT's class
# lose little; small ones lose more, and then take more rounds.
NEW_A_ROUND = 0.8
KEPT = 0.95  # fraction of the descriptions that the repetition check keeps
# Refinements of a description. With a threshold that 4 of 5 drawings pass, a fifth of the descriptions is refined,
# a fifth of these again, and so on: 0.2 + 0.04 + 0.008.
REFINEMENTS = 0.25
NAME_TOKENS = 10  # of a reply that names a class
# Of the scorer `ask`: the features of a description, and the reply to each.
FEATURES, FEATURE = 4, 20  # characters
ANSWER_TOKENS = 4
TAGS_TOKENS = 120  # of ten tags and three captions


def estimate(settings: Params, classes: Sequence[ClassRecord]) -> dict[str, Cost]:
    """What each stage needs in all, whether or not replies to some of it are stored already."""
    words = prompts.load()
    tail = [c for c in classes if c.train < settings.extend.target]
    rounds = feedback.load({c.name for c in tail})
    image_tokens = Budget(prices=settings.prices).image_tokens(settings.vision.model)
    described, extended, summed_up, refined, seen = Cost(), Cost(), Cost(), Cost(), Cost()
    images = 0.0
    for c in classes:
        length = DESCRIPTION + len(c.name)
        known = c.train if c in tail else 0
        if c in tail:
            question = _tokens(_length(words.describe(c.name, "", c.context))) + image_tokens
            described += _asked(c.train * REPLIES_AN_IMAGE, question, _tokens(length))
            asked, kept = _extend(settings, words, c, length, c.train, settings.extend.target - c.train)
            known += round(kept)
            extended += asked
            for line in rounds[c.name]:
                asked, more = _extend(settings, words, c, length, c.train + kept, line.descriptions, line.rivals)
                extended, kept = extended + asked, kept + more
            question = _tokens(_length(words.refine(c.name, [("d" * length, None)], None, 1)))
            refined += _asked(kept * REFINEMENTS, question, _tokens(length))
            images += kept * (1 + REFINEMENTS)
        if settings.templates.source == "llm":
            question = _tokens(_length(words.summarize(c.name, ["d" * length] * known, c.context)))
            summed_up += _asked(1, question, _tokens(TEMPLATE + len(c.name)))

    shown = min(images_wanted(settings), sum(c.test for c in classes))
    class_list = prompts.class_list([c.name for c in classes])
    question = _tokens(_length(words.classify(class_list, ""))) + image_tokens
    named, of_tags = _asked(shown, question, NAME_TOKENS), Cost()
    if settings.ask.way == "tags":
        named = _asked(shown, _tokens(_length(words.tags(""))) + image_tokens, TAGS_TOKENS)
        question = _tokens(_length(words.classify_tags(class_list, ""))) + TAGS_TOKENS
        of_tags = _asked(shown, question, NAME_TOKENS)

    if settings.filter.scorer == "ask":
        question = _tokens(_length(words.ask_features(["f" * FEATURE] * FEATURES, "", None, 1))) + image_tokens
        seen = _asked(images * REPLIES_AN_IMAGE, question, FEATURES * ANSWER_TOKENS)

    prompt_tokens, image_tokens = drawing_tokens.expected(settings.t2i, "d" * DESCRIPTION)

    def cost(section: ChatSettings, asked: Cost, images: float = 0) -> Cost:
        price = settings.prices.get(section.model, Price())
        thinking = 0 if section.reasoning_effort == "none" else asked.calls * price.reasoning_tokens
        said = asked.prompt_tokens, asked.completion_tokens + thinking
        return priced(
            settings.prices,
            section.model,
            settings.t2i.billed_as,
            asked.calls,
            *said,
            images,
            reasoning_tokens=thinking,
            flex=said if section.service_tier == "flex" else (0, 0),
            drawing_tokens=(images * prompt_tokens, images * image_tokens),
        )

    return {
        "describe": cost(settings.vision, described),
        "extend": cost(settings.llm, extended),
        "templates": cost(settings.llm, summed_up),
        "generate": cost(settings.llm, refined, images) + cost(settings.vision, seen),
        "ask": cost(settings.vision, named) + cost(settings.llm, of_tags),
    }


def _extend(
    settings: Params,
    words: prompts.Prompts,
    c: ClassRecord,
    length: int,
    known: float,
    missing: int,
    rivals: Sequence[str] = (),
) -> tuple[Cost, float]:
    """The questions about one class, `missing` descriptions beside `known` ones, and how many of them it keeps."""
    asked, new = Cost(), 0.0
    for _ in range(settings.extend.max_rounds):
        if new >= missing:
            break
        wanted = min(reflect.WANTED, round(missing - new))
        listed = ["d" * length] * round(known + new)
        question = words.extend(c.name, listed, wanted, 0, c.context, rivals)
        asked += _asked(1, _tokens(_length(question)), _tokens(wanted * length))
        # When about one is missing, one more question brings it.
        new = missing if missing - new < 1 / NEW_A_ROUND else new + max(1.0, wanted * NEW_A_ROUND)
    new = min(new, missing)
    if not settings.extend.repetition_check or new <= 1:
        return asked, new
    checks = math.ceil(new * length / (repeats.CHARACTERS_A_TOKEN * settings.llm.max_tokens))
    overhead = _tokens(_length(words.repetition_check(c.name, [])))
    check = _asked(checks, overhead + _tokens(new * length) / checks, KEPT * _tokens(new * length) / checks)
    return asked + check, new * KEPT


def _asked(calls: float, prompt_tokens: float, completion_tokens: float) -> Cost:
    return Cost(calls, 0, calls * prompt_tokens, calls * completion_tokens)


def _length(messages: Sequence) -> int:
    return sum(len(message.text) for message in messages)


def _tokens(characters: float) -> float:
    return characters / CHARACTERS_A_TOKEN


def table(settings: Params, costs: dict[str, Cost]) -> Table:
    held = dict.fromkeys(costs, 0)
    for name, _ in stored():
        held[name] = held.get(name, 0) + 1
    drawing = [settings.llm.model, settings.t2i.billed_as]
    if settings.filter.scorer == "ask":
        drawing.append(settings.vision.model)
    models = dict.fromkeys(costs, settings.llm.model) | {
        "describe": settings.vision.model,
        "ask": settings.vision.model + (f", {settings.llm.model}" if settings.ask.way == "tags" else ""),
        "generate": ", ".join(dict.fromkeys(drawing)),
    }
    # Without padding the numbers of the largest data sets fit a terminal of 80; model names are folded.
    table = Table(title="Estimate of what the loops will ask for", box=box.SIMPLE_HEAD, padding=0)
    for heading in ("stage", "model", "calls", "images", "prompt tok.", "reply tok.", "USD", "stored"):
        words = heading in ("stage", "model")
        table.add_column(
            heading, justify="left" if words else "right", no_wrap=heading != "model", overflow="fold"
        )
    total = sum(costs.values(), Cost())
    for name, cost in [*costs.items(), ("total", total)]:
        numbers = (cost.calls, cost.images, cost.prompt_tokens, cost.completion_tokens)
        usd = "no price" if cost.usd is None else f"{cost.usd:,.2f}"
        count = f"{sum(held.values()) if name == 'total' else held[name]:,}"
        if name == "total":
            table.add_section()
        table.add_row(name, models.get(name, ""), *(f"{n:,.0f}" for n in numbers), usd, count)
    captions = []
    if total.usd is None:
        captions.append("A model has no price: add it to `prices` in params.yaml.")
    if total.reasoning_tokens:
        captions.append(f"Of the reply tokens {total.reasoning_tokens:,.0f} are thinking (reasoning_effort).")
    table.caption = "\n".join(captions) or None
    return table


def prepared_classes() -> list[ClassRecord]:
    """What `prepare` found. Raises LTGCError where it has not run: it alone is free, unlike `dvc repro`."""
    if not CLASSES.exists():
        raise LTGCError(f"{CLASSES}: not there; run `dvc repro prepare`, which costs nothing")
    return files.read_csv(CLASSES, ClassRecord)


def main(drawing_rate: float | None = None, training_rate: float | None = None) -> None:
    """The rates are images a second of one GPU; None: what `ltgc bench` measured, if it did."""
    settings = params.load(
        *("servers", "llm", "vision", "t2i", "extend", "templates", "filter", "ask", "prices"),
        *("train", "methods", "seeds"),
    )
    classes = prepared_classes()
    costs = estimate(settings, classes)
    output().print(table(settings, costs))
    rates = gpu_hours.rates(drawing_rate, training_rate)
    for line in gpu_hours.lines(settings, costs["generate"].images, rates):
        output().print(line)

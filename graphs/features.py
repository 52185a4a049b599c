"""The scorer `ask` (docs/models.md): a vision model says of each feature whether a drawing shows it.

One question a drawing holds all features of the description that was drawn. Where it has none, those of the class
template C_y are asked about: they are the most common ones, and a rarer variant lacks some of them.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from graphs.parse.reply import Unusable, usable_text
from graphs.parse.yes_no import parse_answers, split_features
from graphs.prompts import Prompts
from ltgc.clients.chat import Chat
from ltgc.clip.detection import DECIMALS
from ltgc.clip.subject import Score, Subject
from ltgc.data import images
from ltgc.pipeline.artifacts.dataset import ClassRecord
from ltgc.pipeline.settings.clip import FilterSettings

FAILED = "questions: "  # begins the reason of an attempt whose questions got no usable answer


class FeatureQuestions:
    """Scores images of concurrent graphs by the share of features that the vision model sees in them."""

    def __init__(
        self,
        chat: Chat,
        prompts: Prompts,
        classes: Sequence[ClassRecord],
        templates: Mapping[int, Sequence[str]],
        settings: FilterSettings,
    ) -> None:
        """chat: the vision model; templates: label -> the features of C_y."""
        self._chat, self._prompts, self._settings = chat, prompts, settings
        self._classes = {c.label: c for c in classes}
        self._templates = templates
        # Each that waits for its turn holds its image.
        self._held = asyncio.Semaphore(chat.server.section.concurrency + images.DECODED_AT_ONCE)

    def features(self, subject: Subject) -> list[str]:
        """What is asked about: at least one feature, if only that the image shows the class."""
        drawn = split_features(subject.features or "")
        return drawn or list(self._templates.get(subject.label, ())) or [self._classes[subject.label].name]

    async def score(self, subject: Subject, image: bytes) -> Score:
        """The share of features that are there. No usable answer after filter.tries questions: no score."""
        asked = self.features(subject)
        counts: Counter[str] = Counter()
        failures: Counter[str] = Counter()
        unusable = None
        async with self._held:
            url = await asyncio.to_thread(images.data_url, image)
            for number in range(1, self._settings.tries + 1):
                question = self._prompts.ask_features(asked, url, unusable, number)
                reply = await self._chat.ask(self._classes[subject.label].slug, question)
                counts.update({f"vision_{name}": count for name, count in reply.counts.items()})
                try:
                    answers = parse_answers(usable_text(reply), len(asked))
                except Unusable as error:
                    unusable = error.reason
                    failures[f"{FAILED}{unusable}"] += 1
                    if reply.failure:  # it has been retried, or would fail again
                        break
                    continue
                share = round(sum(answers) / len(answers), DECIMALS)
                threshold = round(self._settings.threshold, DECIMALS)
                return Score(share, threshold, dict(zip(asked, answers, strict=True)), None, counts, failures)
        return Score(None, None, None, f"{FAILED}{unusable}", counts, failures)

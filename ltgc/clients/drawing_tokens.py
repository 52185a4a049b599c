"""Images that are billed by tokens: how many one is, from its size and quality, before and after it is drawn."""

from typing import Any

from ltgc.clients.limits import tokens
from ltgc.pipeline.settings.servers import T2ISettings

# Patches along the longer side, by quality. With the formula of community.openai.com/t/1382699 they give OpenAI's
# own examples: 0.006, 0.053 and 0.211 USD for gpt-image-2 at 1024 x 1024.
SIDES = {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96}
SIDES_2 = {"low": 16, "medium": 48, "high": 96}
# gpt-image-2.6 is said to take 3 to 4 times the tokens of 2.5 at low and medium; nobody has published figures.
MORE_2_6 = {"low": 4, "medium": 4}
DEAREST = "high"  # what an image counts as whose quality is left to the model
LARGEST = 1536, 1024  # pixels, of an image whose size is left to the model: "auto"
PROMPT_OVERHEAD = 6  # tokens that OpenAI adds to a prompt


def expected(section: T2ISettings, prompt: str) -> tuple[int, int]:
    """(tokens of the prompt, tokens of the image) of one drawing; 0, 0 for a model that is not billed by them."""
    if not section.is_gpt_image:
        return 0, 0
    name, quality = section.model, section.quality or DEAREST
    sides = SIDES_2 if name == "gpt-image-2" or name.startswith("gpt-image-2-") else SIDES
    side = sides.get(quality, max(sides.values()))
    width, height = LARGEST if section.size == "auto" else map(int, section.size.split("x"))
    long, short = max(width, height), min(width, height)
    count = side * round(side * short / long) * (2_000_000 + width * height) / 4_000_000
    more = MORE_2_6.get(quality, 1) if name.startswith("gpt-image-2.6") else 1
    return tokens(prompt) + PROMPT_OVERHEAD, int(count * more) + 1


def billed(response: Any, section: T2ISettings, prompt: str) -> tuple[int, int]:
    """The same as the server counted it (`usage`), or as it is expected if the server sent no count."""
    usage = getattr(response, "usage", None)
    if usage is None or not usage.output_tokens:
        return expected(section, prompt)
    return usage.input_tokens, usage.output_tokens

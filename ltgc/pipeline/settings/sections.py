"""All sections of params.yaml, with the type of each.

In no digest of code: what a stage loads is in its digest through the types of the sections that it loads
(ltgc/pipeline/code_digest.py), so that a new section reruns no other stage.
"""

from pydantic import Field

from ltgc.pipeline.settings.base import Section
from ltgc.pipeline.settings.clip import ClipSettings, FilterSettings, QualitySettings
from ltgc.pipeline.settings.data import DataSettings, LicensesSettings
from ltgc.pipeline.settings.loops import AskSettings, DescribeSettings, ExtendSettings, TemplatesSettings
from ltgc.pipeline.settings.servers import BudgetSettings, ChatSettings, Price, ServersSettings, T2ISettings
from ltgc.pipeline.settings.training import CompareSettings, EvaluateSettings, Method, TrainSettings


class Params(Section):
    """params.yaml. Sections that were not asked for are absent: touching one raises AttributeError."""

    data: DataSettings
    servers: ServersSettings  # before the sections that it completes: an error in it is named as its own
    llm: ChatSettings
    vision: ChatSettings
    describe: DescribeSettings
    extend: ExtendSettings
    templates: TemplatesSettings
    t2i: T2ISettings
    clip: ClipSettings
    filter: FilterSettings
    quality: QualitySettings
    train: TrainSettings
    evaluate: EvaluateSettings
    ask: AskSettings
    compare: CompareSettings
    methods: list[Method] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    licenses: LicensesSettings
    budget: BudgetSettings
    prices: dict[str, Price]

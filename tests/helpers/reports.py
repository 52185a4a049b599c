"""The report on a finished pipeline, made by its stages."""

from pathlib import Path

import pytest

from ltgc.pipeline.artifacts.results import REPORT
from stages import compare as compare_stage
from stages import loops as loops_stage
from stages import report as report_stage

EVIL = "<img src=x onerror=alert(1)>"


def make(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the stages up to the report on the artifacts in `root`."""
    monkeypatch.chdir(root)
    compare_stage.main()
    loops_stage.main()
    report_stage.main()
    return REPORT.read_text(encoding="utf-8")

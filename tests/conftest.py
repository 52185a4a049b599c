"""Fixtures that several test modules share."""

import dvc_clone
import pytest
from openai_server import openai_server


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """What one process of `pytest -n` runs: a module, for its fixtures; and all that share the clone."""
    for item in items:
        shared = "clone" if {"clone", "teammate"} & set(item.fixturenames) else item.module.__name__
        item.add_marker(pytest.mark.xdist_group(shared))


@pytest.fixture(scope="module")
def running_server():
    """One scriptable server a test module; reset its script before each test."""
    with openai_server() as script:
        yield script


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """One pipeline, run once for all tests (85 s); a test leaves it as it was."""
    return dvc_clone.reproduced(tmp_path_factory.mktemp("clone with spaces and ümläuts") / "ltgc")

"""Fixtures that several test modules share."""

import pytest
from openai_server import openai_server


@pytest.fixture(scope="module")
def running_server():
    """One scriptable server a test module; reset its script before each test."""
    with openai_server() as script:
        yield script

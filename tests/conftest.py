"""Fixtures that several test modules share."""

import os

import pytest
from helpers import cloned_pipeline, warm_commands
from helpers.openai_server import openai_server
from helpers.paths import ROOT

os.environ["PYTHONPATH"] = str(ROOT)  # stages that tests start in another folder run this code, too
os.environ["DVC_NO_ANALYTICS"] = "1"  # a process more for every command
warm_commands.make_place()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """What one process of `pytest -n` runs: a module, for its fixtures; and all that share the clone."""
    for item in items:
        shared = "clone" if {"clone", "teammate"} & set(item.fixturenames) else item.module.__name__
        item.add_marker(pytest.mark.xdist_group(shared))


@pytest.fixture(scope="session", autouse=True)
def pool_of_the_session(tmp_path_factory):
    """For what runs before a test does, as fixtures: never the user's own pool."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTGC_CACHE", str(tmp_path_factory.mktemp("pool of the session")))
        yield


@pytest.fixture(autouse=True)
def pool_folder(tmp_path_factory, monkeypatch):
    """An empty pool for each test."""
    folder = tmp_path_factory.mktemp("pool")
    monkeypatch.setenv("LTGC_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def running_server():
    """One scriptable server a test module; reset its script before each test."""
    with openai_server() as script:
        yield script


# tiny brings torch: imported by the tests that need it.
@pytest.fixture(scope="session")
def clip_name(tmp_path_factory):
    """The small random CLIP of tests/helpers/training_world.py, as params.yaml names it."""
    from helpers import training_world

    return training_world.save_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def model(clip_name):
    from helpers import training_world

    return training_world.load_tiny(clip_name)


@pytest.fixture
def in_world(tmp_path, clip_name, monkeypatch):
    """Makes tests/helpers/training_world.py's world, with these settings of training, the working directory."""
    from helpers import training_world

    def make(**train):
        training_world.world(tmp_path, clip_name, **train)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """One pipeline, run once for all tests (85 s); a test leaves it as it was."""
    return cloned_pipeline.reproduced(tmp_path_factory.mktemp("clone with spaces and ümläuts") / "ltgc")

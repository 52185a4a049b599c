"""Fixtures that several test modules share."""

import os

import pytest
from helpers import cloned_pipeline, warm_commands
from helpers.openai_server import openai_server
from helpers.paths import ROOT

os.environ["PYTHONPATH"] = str(ROOT)  # stages that tests start in another folder run this code, too
os.environ["DVC_NO_ANALYTICS"] = "1"  # a process more for every command
warm_commands.make_place()


# Modules whose tests take longest, in the order in which they start; those of CLONE share the clone.
CLONE = ("test_pipeline.py", "test_sharing.py", "test_docs.py")
LONGEST = (*CLONE, "test_durability.py", "test_paid_work.py", "test_resume.py", "test_code_digest.py")


def pytest_collection_modifyitems(items):
    """Those that take longest first: at the end nobody waits for them."""
    order = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_xdist_make_scheduler(config, log):
    """A process of `pytest -n` runs whole modules, for their fixtures, and one of them all that share the clone.

    Not by marks (--dist loadgroup): pytest 9.2 leaves out of a test's id what pytest-xdist 3.8 writes into it.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFixtures(LoadFileScheduling):
        def _split_scope(self, nodeid):
            module = super()._split_scope(nodeid)
            return "clone" if module.endswith(CLONE) else module

    return ByFixtures(config, log)


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

"""What several rooms' tests share: the sample of the three data sets, written once."""

import signal
from collections import Counter
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: processes that share the files then end together."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Commands that tests start can be interrupted, also where the tests run in the background: a
    shell makes those ignore SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded sample. Read-only by agreement: a test that changes it copies it first."""
    from colibri.curate.sample import write_sample

    folder = tmp_path_factory.mktemp("sample") / "data"
    write_sample(folder)
    return folder

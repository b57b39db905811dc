"""What several rooms' tests share: the sample of the three data sets, written once."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded sample. Read-only by agreement: a test that changes it copies it first."""
    from colibri.curate.sample import write_sample

    folder = tmp_path_factory.mktemp("sample") / "data"
    write_sample(folder)
    return folder

"""The fixture for real data must skip, or fail, for the right reason."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def find_data_root():
    path = Path(__file__).with_name("conftest.py")
    spec = importlib.util.spec_from_file_location("conftest_by_path", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.find_data_root


@pytest.mark.parametrize("value", [None, ""])
def test_unset_variable_skips_and_names_itself(find_data_root, value):
    with pytest.raises(pytest.skip.Exception, match="NIP_AUDIO_DATA is not set"):
        find_data_root(value)


def test_set_variable_without_its_folder_fails(find_data_root, tmp_path):
    with pytest.raises(pytest.fail.Exception, match="which is not a folder"):
        find_data_root(str(tmp_path / "none"))


def test_set_variable_gives_the_folder(find_data_root, tmp_path):
    assert find_data_root(str(tmp_path)) == tmp_path

"""A file is whole or not there, whatever stops its writer."""

import pytest

from vitlib.files import replace_whole


def test_a_new_file_and_its_replacement(tmp_path):
    path = tmp_path / "weights"
    for text in ("one", "another"):
        with replace_whole(path) as partial:
            partial.write_text(text)
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "weights"
    path.write_text("old")
    with replace_whole(path) as partial:
        partial.write_text("half of the n")
        assert path.read_text() == "old"
        partial.write_text("half of the new one, and the other half")
    assert path.read_text().endswith("other half")


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "weights"
    path.write_text("old")
    with pytest.raises(error), replace_whole(path) as partial:
        partial.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_lost_process_left_is_cleared_by_the_next(tmp_path):
    path = tmp_path / "weights"
    with replace_whole(path) as partial:
        left = partial
        partial.write_text("new")
    left.write_text("half of an older o")
    with replace_whole(path) as partial:
        partial.write_text("newer")
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replace_whole(tmp_path / "weights"):
        pass
    assert not list(tmp_path.iterdir())

"""A name that a server makes for itself is its own, and stays the same where a file can be kept."""

from pathlib import Path

import pytest

from headrace.cluster.identity import made_server_id


def test_a_name_is_the_same_after_a_restart(tmp_path: Path) -> None:
    name, give_back = made_server_id("host", tmp_path / "server.id")
    give_back()
    again, give_back = made_server_id("host", tmp_path / "server.id")
    give_back()
    assert again == name
    assert name.startswith("host-")


def test_servers_in_one_folder_have_different_names_that_stay(tmp_path: Path) -> None:
    taken = [made_server_id("host", tmp_path / "server.id") for _ in range(3)]
    names = [name for name, _ in taken]
    for _, give_back in taken:
        give_back()
    assert len(set(names)) == 3
    again = [made_server_id("host", tmp_path / "server.id") for _ in range(3)]
    assert [name for name, _ in again] == names
    for _, give_back in again:
        give_back()


@pytest.mark.parametrize("content", ["", "nonsense with spaces\n", "other-1234\n", "host-" + "x" * 200])
def test_a_file_without_a_name_of_this_host_gets_a_new_one(tmp_path: Path, content: str) -> None:
    file = tmp_path / "server.id"
    file.write_text(content)
    name, give_back = made_server_id("host", file)
    give_back()
    assert file.read_text() == f"{name}\n"


def test_without_a_folder_the_name_is_new_each_time(tmp_path: Path) -> None:
    names = {made_server_id("host", tmp_path / "missing" / "server.id")[0] for _ in range(2)}
    assert len(names) == 2


def test_a_long_host_name_leaves_room(tmp_path: Path) -> None:
    name, give_back = made_server_id("h" * 64, tmp_path / "server.id")
    give_back()
    assert len(name) <= 64

"""Objects in files: what a row says is on disk, and nothing is on disk that no row names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import UnexpectedObjectContentError
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from common.messages.pull_headers import FILE_MARK
from server.service.calls.object_files import SMALLEST_FILE, ObjectFiles, told_by_file
from server.service.superlink import SuperLink

RUN = 5


def tree_of(*frames: bytes) -> tuple[ObjectTree, dict[str, bytes]]:
    """Return a tree of objects, a file's worth for each frame, and their contents."""
    records = RecordDict({str(n): ConfigRecord({"frame": f}) for n, f in enumerate(frames)})
    contents = {name: one.deflate() for name, one in get_all_nested_objects(records).items()}
    return get_object_tree(records), contents


def large(number: int) -> bytes:
    return bytes([number]) * SMALLEST_FILE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(tmp_path: Path, folder: Path) -> ObjectFiles:
    return opened(tmp_path, folder)


def opened(place: Path, folder: Path) -> ObjectFiles:
    found = ObjectFiles(str(place / "superlink.db"), folder)
    found.initialize()
    found.begin()
    return found


def put_all(store: SqlObjectStore, tree: ObjectTree, contents: Mapping[str, bytes]) -> None:
    store.preregister(RUN, tree)
    for name, content in contents.items():
        store.put(name, content)


def names(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.iterdir()}


def test_large_contents_are_files_and_small_ones_rows(store: ObjectFiles, folder: Path) -> None:
    tree, contents = tree_of(large(1), b"small")
    put_all(store, tree, contents)
    assert {name: store.get(name) for name in contents} == contents
    assert names(folder) == {n for n, c in contents.items() if len(c) >= SMALLEST_FILE}
    assert store.get("0" * 64) is None
    with store.session() as session:
        most = session.scalar(text("SELECT max(length(content)) FROM objects"))
    assert most < SMALLEST_FILE


@pytest.mark.parametrize("padding", [0, SMALLEST_FILE])
def test_no_site_can_name_a_file_of_the_coordinator_by_an_object(
    store: ObjectFiles, tmp_path: Path, padding: int
) -> None:
    """Its content would have to begin with the mark, and no object's may."""
    secret = tmp_path / "secret"
    secret.write_text("of the coordinator")
    content = FILE_MARK + os.fsencode(secret) + bytes(padding)
    name = hashlib.sha256(content).hexdigest()
    store.preregister(RUN, ObjectTree(object_id=name))
    with pytest.raises(UnexpectedObjectContentError):
        store.put(name, content)
    with told_by_file():
        assert store.get(name) == b""


def test_an_object_that_is_on_its_way_has_no_content_yet(store: ObjectFiles) -> None:
    tree, contents = tree_of(large(1))
    assert set(store.preregister(RUN, tree)) == set(contents)
    assert all(store.get(name) == b"" for name in contents)


def test_what_is_deleted_has_no_file_and_what_is_shared_stays(
    store: ObjectFiles, folder: Path
) -> None:
    first, contents = tree_of(large(1), large(2))
    second, more = tree_of(large(2), large(3))
    put_all(store, first, contents)
    put_all(store, second, more)
    (shared,) = set(contents) & set(more)
    store.delete(first.object_id)
    assert all((store.get(name) is None) == (name != shared) for name in contents)
    assert {name: store.get(name) for name in more} == more
    assert names(folder) == set(more) - {second.object_id}
    store.delete(shared)  # somebody refers to it
    assert store.get(shared) is not None
    store.delete_objects_in_run(RUN)
    assert len(store) == 0
    assert list(folder.iterdir()) == []


def test_a_delete_that_is_taken_back_leaves_the_file(store: ObjectFiles) -> None:
    tree, contents = tree_of(large(1))
    put_all(store, tree, contents)

    def broken() -> None:
        with store.session():
            store.delete(tree.object_id)
            message = "after the delete"
            raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="after the delete"):
        broken()
    assert {name: store.get(name) for name in contents} == contents


def test_an_object_that_comes_again_while_it_is_deleted_keeps_its_file(
    store: ObjectFiles, folder: Path
) -> None:
    """The older file goes after the commit; the newer one has another name."""
    tree, contents = tree_of(large(1))
    put_all(store, tree, contents)
    old = set(folder.iterdir())
    store.delete(tree.object_id)
    put_all(store, tree, contents)
    assert not old & set(folder.iterdir())
    assert {name: store.get(name) for name in contents} == contents


def test_what_nobody_announced_or_is_another_content_is_not_kept(
    store: ObjectFiles, folder: Path
) -> None:
    tree, contents = tree_of(large(1))
    (name,) = (n for n, c in contents.items() if len(c) >= SMALLEST_FILE)
    with pytest.raises(NoObjectInStoreError):
        store.put(name, contents[name])
    store.preregister(RUN, tree)
    with pytest.raises(ValueError, match="does not match"):
        store.put(name, contents[name][:-1] + b"y")
    with pytest.raises(ValueError, match="does not match"), store.staged(name, large(9)):
        pass
    assert list(folder.iterdir()) == []
    assert store.get(name) == b""


def test_what_was_written_before_and_is_not_wanted_goes(store: ObjectFiles, folder: Path) -> None:
    tree, contents = tree_of(large(1))
    store.preregister(RUN, tree)
    (name,) = (n for n, c in contents.items() if len(c) >= SMALLEST_FILE)
    with store.staged(name, contents[name]):
        assert names(folder) == {name}  # on disk, and no row names it
        assert store.get(name) == b""
    assert list(folder.iterdir()) == []
    with store.staged(name, contents[name]):
        store.put(name, contents[name])
    assert store.get(name) == contents[name]
    with store.staged(name, contents[name]):  # here already: not written again
        assert len(list(folder.iterdir())) == 1


def test_a_file_is_on_disk_before_its_row_says_so(
    store: ObjectFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, contents = tree_of(large(1))
    store.preregister(RUN, tree)
    (name,) = (n for n, c in contents.items() if len(c) >= SMALLEST_FILE)
    said: list[bytes | None] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        said.append(store.get(name))
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    with store.staged(name, contents[name]):
        store.put(name, contents[name])
    assert said == [b""]
    assert store.get(name) == contents[name]


def test_a_start_after_a_crash_leaves_no_file_without_a_row_and_no_row_without_a_file(
    tmp_path: Path, store: ObjectFiles, folder: Path
) -> None:
    tree, contents = tree_of(large(1), large(2))
    put_all(store, tree, contents)
    first, _ = (path for path in folder.iterdir())
    first.unlink()
    (folder / f"{'0' * 64}.torn").write_bytes(b"half")
    again = opened(tmp_path, folder)
    lost = first.name.partition(".")[0]
    assert names(folder) == {n for n, c in contents.items() if len(c) >= SMALLEST_FILE} - {lost}
    assert again.get(lost) == b""
    assert again.preregister(RUN, tree) == [lost]
    again.put(lost, contents[lost])
    assert {name: again.get(name) for name in contents} == contents


def test_a_file_that_somebody_took_away_is_asked_for_again(
    store: ObjectFiles, folder: Path
) -> None:
    tree, contents = tree_of(large(1))
    put_all(store, tree, contents)
    (path,) = folder.iterdir()
    path.unlink()
    name = path.name.partition(".")[0]
    assert store.get(name) is None
    assert store.preregister(RUN, tree) == [name]


def test_rows_of_the_last_release_are_read_and_deleted(tmp_path: Path, folder: Path) -> None:
    before = SqlObjectStore(str(tmp_path / "superlink.db"))
    before.initialize()
    tree, contents = tree_of(large(1), b"small")
    put_all(before, tree, contents)
    store = opened(tmp_path, folder)
    assert {name: store.get(name) for name in contents} == contents
    store.delete(tree.object_id)
    assert len(store) == 0


def test_a_full_disk_refuses_the_object_and_leaves_it_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = SuperLink(tmp_path / "superlink.db")
    run = link.start_run("demo")
    tree, contents = tree_of(large(1))
    session = link.state.start_session(run.number)
    link.state.preregister_object_tree(tree, session)
    (name,) = (n for n, c in contents.items() if len(c) >= SMALLEST_FILE)

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert not link.state.store_object(run.number, session, name, contents[name])
    assert list((tmp_path / "objects").iterdir()) == []
    assert link.state.store_object(run.number, session, name, contents[name])
    assert link.state.get_object(run.number, name) == contents[name]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[SqlObjectStore, ObjectFiles]:
    place = tmp_path_factory.mktemp("twins")
    (place / "theirs").mkdir()
    theirs = SqlObjectStore(str(place / "theirs" / "superlink.db"))
    theirs.initialize()
    return theirs, opened(place, place / "objects")


#: Trees that share objects with each other, small and large ones.
TREES = [
    tree_of(*(large(n) if n % 2 else bytes([n]) for n in frames))
    for frames in ((1,), (1, 2), (2, 3), (1, 2, 3, 4), (4,))
]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, len(TREES) - 1), st.integers(1, 2)), max_size=12
    )
)
def test_our_store_keeps_and_forgets_what_flowers_does(
    twins: tuple[SqlObjectStore, ObjectFiles], steps: list[tuple[bool, int, int]]
) -> None:
    """Flower's is the slow twin; `delete` is of trees and, at the end, of runs."""
    for store in twins:
        store.clear()
    everything = {n: c for _, contents in TREES for n, c in contents.items()}
    for is_put, which, run in steps:
        tree, contents = TREES[which]
        for store in twins:
            if is_put:
                for name in store.preregister(run, tree):
                    store.put(name, contents[name])
            else:
                store.delete(tree.object_id)
    for run in (1, 2, 3):
        theirs, ours = ({n: s.get(n) for n in everything} for s in twins)
        assert ours == theirs
        for store in twins:
            store.delete_objects_in_run(run)

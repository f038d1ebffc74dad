"""Contents of large objects in files; Flower's database keeps names, sizes and who refers to what.

    written   file and fsync, then the row says that it is available, in a transaction of its own
    deleted   a tree in a few statements a level; files go once that is committed
    at start  files that no row names go; a row whose file is gone is asked for again

A file's name is the object's SHA-256 and a random end: an object that is deleted and comes again at
the same moment has another file. Small objects stay in their rows.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.objectstore_models import ObjectChild, RunObject, StoredObject
from flwr.supercore.utils import uint64_to_int64
from sqlalchemy import delete, event, func, select, update
from sqlalchemy.orm import Session

from common.messages.pull_headers import FILE_MARK
from common.platform.logs import log

#: Smaller objects cost less in a row than as a file with its fsync.
SMALLEST_FILE = 64 * 1024
#: Of what a row has in place of the content.
_NAME_BYTES = len(FILE_MARK) + 81
#: SQLite's least number of parameters of a statement, and to spare.
_MOST_PARAMETERS = 900
#: What this thread has written for the object that it is about to put: file by object.
_staged: ContextVar[dict[str, str] | None] = ContextVar("staged", default=None)
#: Whether this thread's caller reads files itself.
_by_file: ContextVar[bool] = ContextVar("by_file", default=False)


@contextlib.contextmanager
def told_by_file() -> Iterator[None]:
    """Have `get` in the block return FILE_MARK and the path of a large object's file."""
    token = _by_file.set(True)
    try:
        yield
    finally:
        _by_file.reset(token)


class ObjectFiles(SqlObjectStore):
    """Flower's store of objects, with large contents in a folder."""

    def __init__(self, database_path: str, folder: Path) -> None:
        super().__init__(database_path)
        self._folder = folder

    def begin(self) -> None:
        """Bring folder and rows together, after a crash above all."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with self.session() as session:
            in_files = select(StoredObject.object_id, StoredObject.content).where(
                StoredObject.is_available == 1,
                func.substr(StoredObject.content, 1, len(FILE_MARK)) == FILE_MARK,
            )
            named = {
                file: str(name)
                for name, content in session.execute(in_files)
                for file in _files_of([content])
            }
            here = {path.name for path in self._folder.iterdir()}
            for file in here - set(named):
                (self._folder / file).unlink(missing_ok=True)
            self._ask_again(session, [named[file] for file in set(named) - here])

    @contextlib.contextmanager
    def staged(self, name: str, content: bytes) -> Iterator[None]:
        """Write a large object's file now, for a `put` in the block; nobody waits for the disk.

        SQLite lets one transaction write at a time, and an fsync in one would hold all up.
        """
        if len(content) < SMALLEST_FILE or self._is_available(name):
            yield
            return
        self._check(name, content)
        staged = {name: self._write(name, content)}
        token = _staged.set(staged)
        try:
            yield
        finally:
            _staged.reset(token)
            for left in staged.values():  # it was not wanted
                (self._folder / left).unlink(missing_ok=True)

    def put(self, object_id: str, object_content: bytes) -> None:
        """Keep an object that was announced."""
        if len(object_content) < SMALLEST_FILE:
            super().put(object_id, object_content)
            return
        staged = _staged.get() or {}
        if object_id not in staged:
            self._check(object_id, object_content)
        name = staged.pop(object_id, None) or self._write(object_id, object_content)
        with self.session() as session:
            taken = session.scalar(
                update(StoredObject)
                .where(StoredObject.object_id == object_id, StoredObject.is_available == 0)
                .values(content=FILE_MARK + name.encode(), is_available=1)
                .returning(StoredObject.object_id)
            )
            if taken is not None:
                return
            (self._folder / name).unlink(missing_ok=True)
            if object_id not in self:
                message = f"Object with ID '{object_id}' was not pre-registered."
                raise NoObjectInStoreError(message)

    def get(self, object_id: str) -> bytes | None:
        """Return an object's content, b"" while it is on its way, None for an unknown one.

        In a block of `told_by_file` a large one's content is its mark and path.
        """
        content = super().get(object_id)
        if content is None or not content.startswith(FILE_MARK):
            return content
        path = self._folder / content[len(FILE_MARK) :].decode()
        try:
            if _by_file.get():
                path.stat()
                return FILE_MARK + os.fsencode(path.absolute())
            return path.read_bytes()
        except FileNotFoundError:
            pass
        with self.session() as session:
            if super().get(object_id) == content:  # else it was deleted meanwhile
                log(__name__).error("a file of an object is gone", object=object_id)
                self._ask_again(session, [object_id])
        return None

    def delete(self, object_id: str) -> None:
        """Delete an object that nobody refers to, and what then nobody refers to."""
        self._delete({object_id})

    def delete_objects_in_run(self, run_id: int) -> None:
        """Delete a run's objects that nobody else refers to."""
        own = RunObject.run_id == uint64_to_int64(run_id)
        with self._mutation_session() as session:
            names = set(session.scalars(select(RunObject.object_id).where(own)))
            if names:
                session.execute(delete(RunObject).where(own))
                self._delete(names)

    def clear(self) -> None:
        """Delete everything."""
        super().clear()
        self.begin()

    def _delete(self, names: set[str]) -> None:
        with self._mutation_session() as session:
            files: list[str] = []
            level = names
            while level:
                free = [
                    str(name)
                    for some in _some(level)
                    for name in session.scalars(
                        select(StoredObject.object_id).where(
                            StoredObject.object_id.in_(some), StoredObject.ref_count == 0
                        )
                    )
                ]
                children: Counter[str] = Counter()
                for some in _some(free):
                    children.update(
                        session.scalars(
                            select(ObjectChild.child_id).where(ObjectChild.parent_id.in_(some))
                        )
                    )
                    files += _files_of(
                        session.scalars(
                            delete(StoredObject)
                            .where(StoredObject.object_id.in_(some))
                            .returning(func.substr(StoredObject.content, 1, _NAME_BYTES))
                            .execution_options(synchronize_session=False)
                        )
                    )
                _refer_less(session, children)
                level = set(children)
            if files:
                event.listen(session, "after_commit", lambda _: self._unlink(files), once=True)

    def _unlink(self, files: Collection[str]) -> None:
        for name in files:
            (self._folder / name).unlink(missing_ok=True)

    def _is_available(self, name: str) -> bool:
        with self.session() as session:
            asked = select(StoredObject.is_available).where(StoredObject.object_id == name)
            return bool(session.scalar(asked))

    @staticmethod
    def _check(name: str, content: bytes) -> None:
        if get_object_id(content) != name:
            message = f"Object ID {name} does not match content hash"
            raise ValueError(message)
        validate_object_content(content=content)

    def _write(self, name: str, content: bytes) -> str:
        file = f"{name}.{secrets.token_hex(8)}"
        path = self._folder / file
        try:
            with path.open("xb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return file

    @staticmethod
    def _ask_again(session: Session, names: Collection[str]) -> None:
        """Note that objects are not here after all; whoever announces them is asked for them."""
        for some in _some(names):
            session.execute(
                update(StoredObject)
                .where(StoredObject.object_id.in_(some))
                .values(content=b"", is_available=0)
            )


def _refer_less(session: Session, children: Counter[str]) -> None:
    """Count so many references less to each object."""
    for times in set(children.values()):
        same = [name for name, n in children.items() if n == times]
        for some in _some(same):
            session.execute(
                update(StoredObject)
                .where(StoredObject.object_id.in_(some))
                .values(ref_count=func.max(StoredObject.ref_count - times, 0))
                .execution_options(synchronize_session=False)
            )


def _files_of(beginnings: Iterable[bytes | None]) -> list[str]:
    return [
        begun[len(FILE_MARK) :].decode("ascii")
        for begun in beginnings
        if begun is not None and begun.startswith(FILE_MARK)
    ]


def _some(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield names in lists that a statement can have as its parameters."""
    left = list(names)
    while left:
        yield left[:_MOST_PARAMETERS]
        left = left[_MOST_PARAMETERS:]

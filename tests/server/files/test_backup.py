"""A coordinator's backup: whole while everything goes on, and nothing of anybody else's."""

from __future__ import annotations

import io
import sqlite3
import stat
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from common.messages.enrolment import JoinRequest
from common.messages.signing_key import fingerprint, new_private_key, public_text
from common.platform.errors import ConfigurationError, StateDamaged
from server.cli.app import app
from server.enrolment.certificates import Authority
from server.enrolment.initialise import set_up
from server.enrolment.registry import Enrolment
from server.files.backup import back_up, restore
from server.files.coordinator_yaml import load_settings, new_settings
from server.files.folder import Folder
from server.rounds.run_state import RunState, RunStore


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "coordinator")
    set_up(folder, new_settings("study", "127.0.0.1:8443"))
    enrolment = Enrolment(folder.enrolment)
    for site in ("east", "west"):
        key = public_text(new_private_key())
        invite = enrolment.invite(site, address="c.example:1", ca_sha256="0" * 64, hours=1)
        enrolment.join(JoinRequest.made(invite, key))
        enrolment.accept(site, fingerprint(key))
    run = folder.run("first")
    run.path.mkdir(parents=True)
    run.run.write_text("{}")
    return folder


def state(number: int) -> RunState:
    weights = {"layer": torch.full((50_000,), float(number))}
    return RunState(
        run="first",
        round=number,
        seed=0,
        fingerprint="f",
        weights=weights,
        server={},
        average={},
        best={},
    )


def typed(folder: Folder, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*words, "--folder", str(folder.path)])
    return done.exit_code, " ".join(done.output.split())


def test_a_coordinator_comes_back_with_its_keys_its_sites_and_its_runs(
    folder: Folder, tmp_path: Path
) -> None:
    RunStore(folder.run("first").state).save(state(3))
    file, back = tmp_path / "backup.tar", Folder(tmp_path / "back")
    assert typed(folder, "backup", str(file))[0] == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    status, said = typed(back, "restore", str(file), "--revoke", "west", "--yes")
    assert status == 0, said
    assert "Accepted: east." in said
    for name in ("settings", "ca", "ca_key", "server_key", "token"):
        path: Path = getattr(back, name)
        assert path.read_bytes() == getattr(folder, name).read_bytes()
    assert [
        p for p in back.path.rglob("*") if p.stat().st_mode & 0o077 and p.name[-4:] == ".key"
    ] == []
    assert stat.S_IMODE(back.path.stat().st_mode) == 0o700
    assert Authority.load(back).certificate == Authority.load(folder).certificate
    found = RunStore(back.run("first").state).load()
    assert found is not None
    assert found.round == 3
    assert not list(folder.path.glob(".backup-*"))
    assert not list(tmp_path.glob(".*"))


def test_who_was_revoked_since_is_asked_before_anything_is_written(
    folder: Folder, tmp_path: Path
) -> None:
    back_up(folder, tmp_path / "backup.tar")
    back = Folder(tmp_path / "back")
    done = CliRunner().invoke(
        app, ["restore", str(tmp_path / "backup.tar"), "--folder", str(back.path)], input="n\n"
    )
    assert "shut them out again with --revoke SITE" in " ".join(done.output.split())
    assert "Nothing was changed" in done.output
    assert not back.path.exists()


def test_what_is_no_backup_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "else").write_text("root:x:0:0")
    status, said = typed(Folder(tmp_path / "back"), "restore", str(tmp_path / "else"))
    assert status == 5
    assert "is no whole backup of a coordinator" in said
    assert "Restore it?" not in said


def test_a_move_to_a_name_that_nobody_knows_is_asked_about(folder: Folder) -> None:
    before = folder.settings.read_bytes()
    words = ["move", "nowhere.invalid:9443", "--folder", str(folder.path)]
    done = CliRunner().invoke(app, words, input="n\n")
    assert "No address of 'nowhere.invalid' is known" in done.output
    assert folder.settings.read_bytes() == before
    assert not folder.notice.exists()
    assert typed(folder, "move", "nowhere.invalid:9443", "--yes")[0] == 0
    assert folder.settings.read_bytes() != before


def test_a_coordinator_of_this_machine_alone_listens_to_others_once_it_moves(
    tmp_path: Path,
) -> None:
    made = Folder(tmp_path / "made")
    assert typed(made, "init", "--address", "localhost:9443")[0] == 0
    assert load_settings(made.settings).listen == "127.0.0.1:9443"
    assert typed(made, "move", "coordinator.invalid:9444", "--yes")[0] == 0
    assert load_settings(made.settings).listen == "0.0.0.0:9444"


def test_a_backup_of_a_run_that_saves_all_the_time_holds_a_whole_round(
    folder: Folder, tmp_path: Path
) -> None:
    store, over = RunStore(folder.run("first").state), threading.Event()
    store.save(state(1))
    with closing(sqlite3.connect(folder.enrolment)) as connection, connection:
        connection.execute("UPDATE sites SET since = 1")

    def save() -> None:
        number = 1
        while not over.is_set():
            number += 1
            store.save(state(number))
            with closing(sqlite3.connect(folder.enrolment)) as connection, connection:
                connection.execute("UPDATE sites SET since = ?", (number,))

    saving = threading.Thread(target=save)
    saving.start()
    try:
        for number in range(5):
            file, back = tmp_path / f"{number}.tar", Folder(tmp_path / f"{number}")
            back_up(folder, file)
            restore(file, back)
            passed_over: list[str] = []
            assert RunStore(back.run("first").state).load(passed_over.append) is not None
            assert passed_over == []
            assert len({site.since for site in Enrolment(back.enrolment).sites()}) == 1
    finally:
        over.set()
        saving.join()


def test_nothing_is_restored_over_a_coordinator_or_written_over_a_file(
    folder: Folder, tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    back_up(folder, file)
    with pytest.raises(ConfigurationError, match="is there already"):
        back_up(folder, file)
    with pytest.raises(ConfigurationError, match="is not empty"):
        restore(file, folder)
    (tmp_path / "half.tar").write_bytes(file.read_bytes()[:5000])
    (tmp_path / "none.tar").write_text("no archive")
    for name in ("half.tar", "none.tar", "missing.tar"):
        with pytest.raises((StateDamaged, ConfigurationError)):
            restore(tmp_path / name, Folder(tmp_path / "back"))
        assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "coordinator/../../outside", "other"])
def test_a_file_with_other_names_writes_nothing(tmp_path: Path, name: str) -> None:
    file = tmp_path / "hostile.tar"
    with tarfile.open(file, "w") as archive:
        for member, content in (("coordinator/ca.key", b"k"), (name, b"x")):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ConfigurationError, match="is no backup of a coordinator"):
        restore(file, Folder(tmp_path / "deep" / "back"))
    assert not list(tmp_path.rglob("*outside*"))
    assert not (tmp_path / "deep" / "back").exists()


def test_a_link_in_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hostile.tar"
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo("coordinator/ca.key")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(ConfigurationError, match="is no backup"):
        restore(file, Folder(tmp_path / "back"))

"""Our own storage SCP for the listener: success is a promise, and without room there is none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from client.inference.arrivals.intake import by_store
from client.inference.arrivals.queue import ArrivalQueue
from client.site.pacs_section import PacsConfig
from common.platform.errors import ConfigurationError, Unreachable
from tests.client.pacs.listener import series, storescu, study_of
from tests.client.pacs.orthanc import free_port

pytestmark = pytest.mark.processes


def config(**changes: object) -> PacsConfig:
    content: dict[str, object] = {
        "route": "dicomweb",
        "url": "http://127.0.0.1:1/dicom-web",
        "own_port": free_port(),
        "own_address": "127.0.0.1",
        "listen": {"titles": ("SENDER",)},
    }
    return PacsConfig.model_validate(content | changes)


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "wardround-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no test mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607


def test_a_full_disk_refuses_images_as_out_of_resources_until_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, pacs = series(tmp_path / "study", "P1"), config()
    arrived = tmp_path / "arrived"
    assert pacs.own_port is not None
    with (
        ArrivalQueue(tmp_path / "arrivals.db") as arrivals,
        small_disk(arrived),
        by_store(pacs, arrived, arrivals),
    ):
        ballast = arrived / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        status, said = storescu(pacs.own_port, files)
        assert status != 0
        assert "OutOfResources" in said or "0xa700" in said.lower(), said
        assert arrivals.listed() == ()
        assert "No space left" in caplog.text
        left = [p for p in arrived.rglob("*") if p.is_file()]
        assert left == [ballast], "a part of an image was left"
        ballast.unlink()
        assert storescu(pacs.own_port, files)[0] == 0
        (one,) = arrivals.listed()
        assert (one.study, one.images, one.state) == (study_of(files), 8, "arriving")


def test_a_sender_who_is_not_named_is_told_by_its_title_once_whatever_it_calls_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, pacs = series(tmp_path / "study", "P1")[:1], config()
    assert pacs.own_port is not None
    with (
        ArrivalQueue(tmp_path / "arrivals.db") as arrivals,
        by_store(pacs, tmp_path / "arrived", arrivals),
    ):
        for title in ("STRANGER", "ANOTHER"):
            assert storescu(pacs.own_port, files, title)[0] != 0
        assert arrivals.listed() == ()
    assert "not in pacs.listen.titles, but 'STRANGER'" in caplog.text
    assert "ANOTHER" not in caplog.text  # many titles do not fill the log


def test_what_is_no_image_file_is_refused_and_the_rest_is_taken(tmp_path: Path) -> None:
    files, pacs = series(tmp_path / "study", "P1"), config()
    broken = bytearray(files[3].read_bytes())
    place = broken.find(b"\x20\x00\x0d\x00UI")  # StudyInstanceUID
    broken[place + 8 : place + 10] = b".."  # begins as no UID may
    files[3].write_bytes(bytes(broken))
    assert pacs.own_port is not None
    with (
        ArrivalQueue(tmp_path / "arrivals.db") as arrivals,
        by_store(pacs, tmp_path / "arrived", arrivals),
    ):
        for file in files:
            storescu(pacs.own_port, [file])
        (one,) = arrivals.listed()
        assert one.images == 7


def test_nobody_may_send_unless_somebody_is_named(tmp_path: Path) -> None:
    with (
        ArrivalQueue(tmp_path / "arrivals.db") as arrivals,
        pytest.raises(ConfigurationError, match=r"pacs\.listen\.titles"),
        by_store(config(listen={}), tmp_path / "arrived", arrivals),
    ):
        pass


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    pacs = config()
    with (
        ArrivalQueue(tmp_path / "arrivals.db") as arrivals,
        by_store(pacs, tmp_path / "arrived", arrivals),
        pytest.raises(Unreachable, match=str(pacs.own_port)),
        by_store(pacs, tmp_path / "arrived", arrivals),
    ):
        pass

"""DICOM files broken at random, the same way for the same number, and what reading makes of them.

    python tests/client/mutations.py FIRST COUNT FOLDER [SOURCES]

reads files number FIRST to FIRST + COUNT - 1, in a process with little address space and a timer
for each file, and prints what became of them as JSON. Sources are small files of every kind that is
read; those of a folder are taken as well where one is given.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

#: Address space of the process that reads: the libraries take 1.5 GiB of it.
ADDRESS_BYTES = 5 << 30
#: Memory that was really used at any time.
RESIDENT_BYTES = 1 << 30
#: Of processor time: a busy machine is no hang. Who waits for ever runs into the test's limit.
SECONDS_A_FILE = 5
#: Sources are smaller than this, so that many files are read in little time.
_SMALL = 64 * 1024

Mutate = Callable[[bytearray, random.Random], None]


def flip_bits(data: bytearray, rng: random.Random) -> None:
    """Turn one to twenty bits, anywhere."""
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_header_bits(data: bytearray, rng: random.Random) -> None:
    """Turn one to eight bits in the first 2 KB behind the preamble."""
    end = min(len(data), 2048)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(min(128, end - 1), end)] ^= 1 << rng.randrange(8)


def edit_length(data: bytearray, rng: random.Random) -> None:
    """Put an extreme length into one element."""
    place = rng.choice(_elements(data)) + 6
    value = rng.choice([0, 1, 2, 3, 0xFFFF, 0xFFFE, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(1 << 16)])
    if rng.random() < 0.5:
        data[place : place + 2] = (value & 0xFFFF).to_bytes(2, "little")
    else:
        data[place + 2 : place + 6] = value.to_bytes(4, "little")


def edit_number(data: bytearray, rng: random.Random) -> None:
    """Put an extreme value where a number of 16 bits may stand: rows, columns, bits."""
    place = rng.choice(_elements(data)) + 8
    value = rng.choice([0, 1, 0x7FFF, 0x8000, 0xFFFF, rng.randrange(1 << 16)])
    data[place : place + 2] = value.to_bytes(2, "little")


def edit_text(data: bytearray, rng: random.Random) -> None:
    """Put odd characters into one element's value."""
    place = rng.choice(_elements(data)) + 8
    odd = rng.choice(
        [b"\\\\", b"\x1b$B", b"\xff\xfe", b"-1", b"1e999", b"NaN", b"99999999", b"\0\0"]
    )
    data[place : place + len(odd)] = odd


def edit_form(data: bytearray, rng: random.Random) -> None:
    """Give one element another value representation."""
    place = rng.choice(_elements(data)) + 4
    forms = [b"SQ", b"OB", b"UN", b"US", b"DS", b"ZZ", b"\0\0", b"IS", b"FD", b"UT"]
    data[place : place + 2] = rng.choice(forms)


def swap_elements(data: bytearray, rng: random.Random) -> None:
    """Exchange the tags of two elements."""
    first, second = rng.choice(_elements(data)), rng.choice(_elements(data))
    data[first : first + 4], data[second : second + 4] = (
        data[second : second + 4],
        data[first : first + 4],
    )


def truncate(data: bytearray, rng: random.Random) -> None:
    """Cut the file anywhere."""
    del data[rng.randrange(1, len(data)) :]


def repeat_part(data: bytearray, rng: random.Random) -> None:
    """Insert a copy of one part at another place."""
    start = rng.randrange(len(data))
    part = data[start : start + rng.randint(1, 200)]
    place = rng.randrange(len(data))
    data[place:place] = part


def remove_part(data: bytearray, rng: random.Random) -> None:
    """Take one part out."""
    start = rng.randrange(128, max(129, len(data)))
    del data[start : start + rng.randint(1, 200)]


def nest(data: bytearray, rng: random.Random) -> None:
    """Put sequences into sequences where an element begins, up to 3000 deep."""
    item = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    place = rng.choice(_elements(data))
    data[place:place] = item * rng.choice([1, 10, 3000])


def edit_end(data: bytearray, rng: random.Random) -> None:
    """Turn bytes in the last half, where the codestream of a compressed file is."""
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(len(data) // 2, len(data))] = rng.randrange(256)


def edit_codestream(data: bytearray, rng: random.Random) -> None:
    """Turn bytes behind a marker of JPEG or JPEG 2000: sizes, tables, precision."""
    markers = (0xC0, 0xC3, 0xC4, 0xDA, 0xF7, 0x51, 0x52)
    found = (data.find(bytes([0xFF, marker]), 200) for marker in markers)
    places = [place for place in found if place > 0]
    start = rng.choice(places or [len(data) // 2])
    for _ in range(rng.randint(1, 4)):
        data[min(len(data) - 1, start + rng.randrange(2, 40))] = rng.randrange(256)


MUTATORS: Sequence[Mutate] = (
    flip_bits,
    flip_header_bits,
    edit_length,
    edit_number,
    edit_text,
    edit_form,
    swap_elements,
    truncate,
    repeat_part,
    remove_part,
    nest,
    edit_end,
    edit_codestream,
)


def _resident() -> int:
    """Return the most bytes that this program held; ru_maxrss would count its parent's, too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _elements(data: bytearray) -> list[int]:
    """Return places where elements of an explicit file seem to begin, or any places."""
    found = []
    place = 132
    while place + 8 <= len(data) and len(found) < 200:
        form, length = bytes(data[place + 4 : place + 6]), 0
        if not form.isalpha() or not form.isupper():
            break
        found.append(place)
        if form in {b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF", b"OD", b"UC"}:
            length = int.from_bytes(data[place + 8 : place + 12], "little") + 12
        else:
            length = int.from_bytes(data[place + 6 : place + 8], "little") + 8
        place += length
    return found or list(range(132, max(133, min(len(data) - 20, 400)), 2))


def mutated(sources: Sequence[bytes], number: int) -> bytes:
    """Return file `number`: one source, changed in one to three ways."""
    rng = random.Random(number)
    data = bytearray(rng.choice(sources))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if len(data) > 300:
            rng.choice(MUTATORS)(data, rng)
    return bytes(data)


def sources_in(*folders: Path) -> list[bytes]:
    """Return the small files of these folders, in the order of their names."""
    paths = sorted(p for folder in folders for p in folder.iterdir() if p.is_file())
    return [p.read_bytes() for p in paths if 0 < p.stat().st_size < _SMALL]


def read_all(first: int, count: int, sources: Sequence[bytes], folder: Path) -> dict[str, object]:
    """Read files and return what became of them; failures name their numbers."""
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    slowest = 0.0
    path = folder / "mutated.dcm"
    for number in range(first, first + count):
        path.write_bytes(mutated(sources, number))
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS_A_FILE)
        try:
            outcomes[_outcome(path, compare=number % 3 == 0)] += 1
        except Exception:  # noqa: BLE001 - whatever comes out is a failure
            failures.append(f"{number}: {traceback.format_exc(limit=-3)}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.process_time() - start)
    return {
        "outcomes": outcomes,
        "failures": failures[:20],
        "failed": len(failures),
        "slowest": slowest,
        "resident": _resident(),
    }


def _outcome(path: Path, *, compare: bool) -> str:
    """Return why a file is refused, or that it is read; anything else is raised.

    With `compare`, pydicom's row of the index has to be the scanner's.
    """
    from client.dicom.headers.header import parse_header, read_file
    from client.dicom.headers.instance import Quarantined
    from client.dicom.pixels.native import read_image
    from client.dicom.reading.files import File
    from client.dicom.reasons import UnusableFile

    status = path.stat()
    file = File(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns)
    row = read_file(file)
    if compare and row != parse_header(file):
        message = f"scanned {row}, parsed {parse_header(file)}"
        raise AssertionError(message)
    try:
        header, pixels = read_image(file)
    except UnusableFile as problem:
        return problem.reason.name
    if isinstance(row, Quarantined):
        message = f"read, though the index refuses it: {row}"
        raise TypeError(message)
    shape = (header.frames, *header.shape)
    if pixels.stored.shape[:3] != shape or len(pixels.slope) != header.frames:
        message = f"stored {pixels.stored.shape}, header {shape}"
        raise AssertionError(message)
    pixels.values(0)
    return "read"


def main() -> None:
    """Read the files that the command line names."""
    first, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sources = sources_in(*map(Path, sys.argv[4:]))
    sys.stdout.write(json.dumps(read_all(first, count, sources, folder)))


if __name__ == "__main__":
    main()

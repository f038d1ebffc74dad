"""Writes the lock files beside it: every package with its version and the hashes of its files.

    make lock        after a change of pyproject.toml or constraints.txt

torch has a file of its own, since there are two builds of one version: PyPI's, which brings a GPU's
libraries on Linux (torch-cuda.txt), and the CPU build, which needs none (torch-cpu.txt). pip takes
a file whose page names its hash before one that merely lies in a folder, so each has a lock.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
#: torch 2.13.0+cpu for CPython 3.11 on x86-64 Linux; add here what another machine uses.
CPU_BUILDS = ("6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",)
EXTRAS = {
    "site": ("site",),
    "ocr": ("site", "ocr"),
    "omop": ("site", "omop"),
    "pathology": ("site", "pathology"),
    "coordinator": ("coordinator",),
    "simulation": ("simulation",),
    "dev": ("dev", "coordinator", "simulation"),
}
#: What a site-slim.txt leaves out of site.txt, and who needs it.
LEFT_OUT = {
    "Parquet tables": ("pyarrow",),
    "OMOP": ("greenlet", "sqlalchemy"),
    "predict and measure, DICOM SR and SEG, FHIR": (
        *("captum", "contourpy", "cycler", "flatbuffers", "fonttools", "highdicom"),
        *("fhir-core", "fhir-resources", "kiwisolver", "matplotlib", "onnxruntime", "pyjpegls"),
        *("pyparsing", "python-dateutil", "tqdm"),
    ),
    "bundles, which a coordinator exports": ("ml-dtypes", "onnx", "onnx-ir", "onnxscript"),
    "Flower's service and its command line": (
        *("alembic", "annotated-doc", "fastapi", "httptools", "mako", "prompt-toolkit"),
        *("python-dotenv", "starlette", "uv", "uvicorn", "uvloop", "watchfiles", "wcwidth"),
        *("websockets",),
    ),
}
_OF_GPUS = re.compile(r"(cuda-|nvidia-|triton)")
_HEAD = "# Written by `make lock`; do not edit. Install with --require-hashes --no-deps.\n"


def main() -> None:
    """Write every lock."""
    gpu: dict[str, str] = {}
    for name, extras in EXTRAS.items():
        found = _compiled(extras)
        torch = found.pop("torch")
        gpu |= {package: text for package, text in found.items() if _OF_GPUS.match(package)}
        _write(name, [text for package, text in found.items() if package not in gpu])
        if name == "site":
            _write(
                "site-slim", [text for package, text in slim(found).items() if package not in gpu]
            )
        _write("torch", [torch])
        version = torch.partition("==")[2].split()[0]
        hashes = "".join(f" \\\n    --hash=sha256:{one}" for one in CPU_BUILDS)
        _write("torch-cpu", [f"torch=={version}+cpu{hashes}\n"])
    _write("torch-cuda", list(gpu.values()))


def slim(found: dict[str, str]) -> dict[str, str]:
    """Return the packages of a site that takes part in runs, and does nothing beside."""
    left_out = {package for packages in LEFT_OUT.values() for package in packages}
    return {package: text for package, text in found.items() if package not in left_out}


def _compiled(extras: tuple[str, ...]) -> dict[str, str]:
    """Return each package's lines, by its name, for every platform and Python that we allow."""
    chosen = [part for extra in extras for part in ("--extra", extra)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *chosen),
            *("--constraint", "constraints.txt", "--no-config", "--universal", "--quiet"),
            *("--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    blocks = re.split(r"(?m)^(?=[a-z0-9])", done.stdout)
    found: dict[str, str] = {}
    for block in filter(str.strip, blocks):
        name = block.partition("==")[0]
        found[name] = found.get(name, "") + block  # two versions for two Pythons
    return found


def _write(name: str, blocks: list[str]) -> None:
    (HERE / f"{name}.txt").write_text(_HEAD + "".join(blocks), encoding="utf-8")


if __name__ == "__main__":
    main()

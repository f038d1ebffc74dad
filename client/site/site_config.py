"""site.yaml: what a hospital's admin decides."""

from __future__ import annotations

import re
import textwrap
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    Strict,
    StringConstraints,
    field_validator,
    model_validator,
)

from client.site.extensions_section import AllowedExtension
from client.site.hours import check_hours, within
from client.site.pacs_section import PacsConfig
from client.site.policy_section import PolicyRules
from client.site.quality_section import QualityRules
from client.site.results_section import ResultReceivers
from client.site.yaml_part import load_part, whole_path
from common.config.parts.section import Part, PositiveFloat, PositiveInt
from common.config.series import Glob, RuleName
from common.config.yaml import write_yaml
from common.messages.enrolment import SiteName
from common.platform.durable_files import replace_durably

_PROXY = r"^(direct|https?://([^/@\s]+@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[1-9][0-9]{0,4}/?)$"
_Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
_HEAD = """\
# This site, as its admin has decided. Changes take effect without a restart, but for ports.
# A mistake here is logged, and what was in force before stays in force.
"""


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?", text):
        message = "expected auto, cpu, cuda, or one GPU such as cuda:1"
        raise ValueError(message)
    return text


class SiteConfig(Part):
    """A site's own configuration; the descriptions stand in site.yaml above their keys."""

    name: SiteName = Field(description="This site's name, as the coordinator invited it.")
    data: Path = Field(
        description="Folder with the DICOM files; it is only read, unless pacs is filled in: "
        "then `wardround-site pull` puts what it fetched there."
    )
    labels: Path | None = Field(
        default=None,
        description="The table of labels (CSV, XLSX or Parquet); null takes labels.csv in that "
        "folder.",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="auto",
        description="Where networks train: auto takes a GPU if there is one; cpu; cuda, or "
        "cuda:1 where this machine has several and gives that one.",
    )
    memory_gib: PositiveFloat | None = Field(
        default=None, description="Memory that training may take, in GiB; null for no limit."
    )
    largest_request_mib: PositiveInt = Field(
        default=2048,
        description="The largest request that this site fetches, in MiB; weights are most of one.",
    )
    threads: PositiveInt | None = Field(
        default=None, description="Threads for training; null takes what the machine has."
    )
    runs_at_once: PositiveInt | None = Field(
        default=None,
        description="So many runs of one coordinator are served at the same time; a run beyond "
        "them waits, or begins without this site and takes it in later. null for no limit.",
    )
    worker_idle_minutes: PositiveFloat | None = Field(
        default=10.0,
        description="The process that trains ends after so many minutes without a request, which "
        "frees its memory; the next request starts it again, in a few seconds. null keeps it.",
    )
    hours: str | None = Field(
        default=None,
        description="Hours of the day in which this site works, such as 22:00-06:00, in this "
        "machine's time; null for all day.",
    )
    proxy: Annotated[str, StringConstraints(pattern=_PROXY)] | None = Field(
        default=None,
        description="The HTTP proxy on the way to the coordinator, http://HOST:PORT or "
        "http://USER:PASSWORD@HOST:PORT (without a name, a Kerberos ticket is shown where one is "
        "wanted); null takes HTTPS_PROXY and NO_PROXY of the environment "
        "(which a systemd service does not see), direct takes none.",
    )
    tunnel: Annotated[bool, Strict()] = Field(
        default=False,
        description="Whether TLS on the way to the coordinator ends before it, at a load balancer "
        "there or a proxy here that opens TLS: TLS with the coordinator's own certificate then "
        "goes inside. `join` writes what the invitation says; `wardround-site doctor` sees it.",
    )
    metrics_port: _Port | None = Field(
        default=None, description="Port for Prometheus on this machine; null for none."
    )
    health_port: _Port | None = Field(
        default=None, description="Port for GET /healthz on this machine; null for none."
    )
    health_grpc_port: _Port | None = Field(
        default=None, description="Port for gRPC's health protocol; null for none."
    )
    pacs: PacsConfig | None = Field(
        default=None,
        description="How the hospital's PACS is reached; null: a folder alone. Such as {route: "
        "dicomweb, url: https://HOST/dicom-web, user: NAME, password_file: /FILE} or {route: "
        "c-get, host: HOST, port: 104, called_title: TITLE}; then wardround-site doctor pacs.",
    )
    results: ResultReceivers = Field(
        default=ResultReceivers(), description="Who beside the PACS is told of results with --send."
    )
    quality: QualityRules = Field(
        default=QualityRules(),
        description="What becomes of images that are suspect; what cannot be read is always "
        "left out. `wardround-site report` lists both.",
    )
    extensions: tuple[AllowedExtension, ...] = Field(
        default=(),
        description="Code that is not Wardround's and that runs may use here, by distribution and "
        "content, as `wardround-site extensions` shows them; it runs with all the rights of this "
        "site's service. Such as [{distribution: acme-nets, content: 'sha256:...'}].",
    )
    series_aliases: dict[RuleName, tuple[Glob, ...]] = Field(
        default={},
        max_length=64,
        description="This site's own words for series that runs choose by rules "
        '(cohort.images.series), by the rule\'s name: {flair: ["tirm*dark"]}. They are looked for '
        "in SeriesDescription and ProtocolName, and never sent.",
    )
    policy: PolicyRules = Field(
        default=PolicyRules(),
        description="What runs may ask of this site. Everything else is refused, and the "
        "coordinator is told which rule, nothing of any patient.",
    )

    @field_validator("data", "labels")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return whole_path(path)

    @field_validator("proxy")
    @classmethod
    def _a_port(cls, proxy: str | None) -> str | None:
        if proxy and proxy != "direct" and int(proxy.rstrip("/").rpartition(":")[2]) > 65535:
            message = "expected a port of at most 65535"
            raise ValueError(message)
        return proxy

    @field_validator("hours")
    @classmethod
    def _two_times(cls, hours: str | None) -> str | None:
        return check_hours(hours)

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = [p for p in (self.metrics_port, self.health_port, self.health_grpc_port) if p]
        if len(set(ports)) < len(ports):
            message = f"two of metrics_port, health_port and health_grpc_port are equal: {ports}"
            raise ValueError(message)
        return self

    @property
    def labels_csv(self) -> Path:
        """The table of labels, wherever it lies."""
        return self.labels or self.data / "labels.csv"

    def works_at(self, now: datetime) -> bool:
        """Return whether the site works at this moment; the end is not in its hours."""
        return within(self.hours, now)


def load_site_config(path: Path) -> SiteConfig:
    """Read site.yaml; ConfigurationError names file, key, value and what was expected."""
    missing = "Type `wardround-site join INVITE --data FOLDER`, or give another home with --home."
    return load_part(path, SiteConfig, missing=missing, keys="keys like name: and data:")


def allowed_extensions(path: Path) -> tuple[AllowedExtension, ...]:
    """Return the extensions that site.yaml allows; none where there is no such file."""
    return load_site_config(path).extensions if path.is_file() else ()


def write_site_config(path: Path, config: SiteConfig) -> None:
    """Write site.yaml with what each key means above it."""
    replace_durably(path, "\n".join([_HEAD, *_section(config, "")]).encode(), mode=0o600)


def _section(part: BaseModel, indent: str) -> list[str]:
    written = part.model_dump(mode="json")
    lines: list[str] = []
    for name, field in type(part).model_fields.items():
        mark = f"{indent}# "
        lines += textwrap.wrap(
            field.description or "", 100, initial_indent=mark, subsequent_indent=mark
        )
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            lines += [f"{indent}{name}:", *_section(value, indent + "  ")]
        else:
            text = write_yaml({name: written[name]}).splitlines()
            lines += [f"{indent}{line}" for line in text]
    return [*lines, ""] if not indent else lines

"""The section `pacs` of site.yaml: where images come from and results may go."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from client.site.hours import check_hours
from client.site.oauth_section import OAuthClient
from client.site.yaml_part import whole_path
from common.config.parts.section import Part, PositiveFloat

#: PS3.3 C.7.3.1.1.1: a code string (PS3.5 6.2, CS).
_Modality = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]
_Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
_Associations = Annotated[int, Field(strict=True, ge=1, le=8)]
#: PS3.5 6.2: AE, at most 16 characters of the default repertoire without backslash.
_Title = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")]


class PullSelection(Part):
    """What of the PACS is fetched."""

    named_by_labels: bool = Field(
        default=True,
        description="Only what the table of labels names, by whichever of PatientID, "
        "StudyInstanceUID, AccessionNumber and SeriesInstanceUID it has.",
    )
    modalities: tuple[_Modality, ...] = Field(
        default=(), description="Only series of these modalities, such as [CT, MR]; [] for all."
    )
    first_day: date | None = Field(
        default=None, description="Only studies of this day and later, such as 2020-01-31."
    )
    last_day: date | None = Field(default=None, description="Only studies of this day and before.")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.first_day and self.last_day and self.first_day > self.last_day:
            message = f"first_day {self.first_day} is after last_day {self.last_day}"
            raise ValueError(message)
        if not self.named_by_labels and not (self.first_day and self.modalities):
            message = (
                "without named_by_labels, give modalities and first_day: the whole archive is "
                "not fetched"
            )
            raise ValueError(message)
        return self


class Worklist(Part):
    """Which workitems of a UPS-RS worklist are ours (IHE AIW-I)."""

    url: str | None = Field(
        default=None, description="The root of UPS-RS, before /workitems; null takes pacs.url."
    )
    label: str | None = Field(default=None, description="Worklist Label (0074,1202) of ours.")
    code: str | None = Field(
        default=None, description="Code value of the Scheduled Workitem Code Sequence of ours."
    )
    poll_seconds: PositiveFloat = Field(default=10.0, description="How often it is asked.")

    @model_validator(mode="after")
    def _ours_alone(self) -> Self:
        if self.label is None and self.code is None:
            message = "give label or code: not every workitem is for this model"
            raise ValueError(message)
        return self


class Listening(Part):
    """How arriving studies are taken by `wardround-site listen`."""

    titles: tuple[_Title, ...] = Field(
        default=(), description="AE titles that may store here; [] for called_title alone."
    )
    settle_seconds: PositiveFloat = Field(
        default=30.0, description="A study may be whole when nothing of it came for so long."
    )
    keep_hours: PositiveFloat = Field(
        default=24.0, description="What arrived is removed so long after its study was dealt with."
    )
    worklist: Worklist | None = Field(
        default=None,
        description="For `listen --worklist`: workitems that are performed, such as {label: "
        "wardround-lung}; null for none.",
    )
    give_up_hours: PositiveFloat = Field(
        default=24.0,
        description="A study that lacks images by the PACS's count is listed as failed after that.",
    )


class PacsConfig(Part):
    """How this site reaches its PACS."""

    route: Literal["dicomweb", "c-get", "c-move", "folder"] = Field(
        description="How images are fetched: dicomweb (QIDO-RS and WADO-RS), c-get, c-move, or "
        "folder (a share that the PACS exports to)."
    )
    select: PullSelection = Field(default=PullSelection(), description="What is fetched.")
    folder: Path | None = Field(
        default=None, description="The share that the PACS exports to, for the route folder."
    )
    url: str | None = Field(
        default=None,
        description="DICOMweb's root, such as https://pacs.hospital.example/dicom-web.",
    )
    user: str | None = Field(default=None, description="User for DICOMweb; null for none.")
    password_file: Path | None = Field(
        default=None, description="File with that user's password, readable by this user alone."
    )
    oauth: OAuthClient | None = Field(
        default=None,
        description="In place of a user: access tokens for DICOMweb, such as {token_url: "
        "https://LOGIN/token, client_id: NAME, secret_file: /FILE}; null for none.",
    )
    host: str | None = Field(default=None, description="The PACS's host, for c-get and c-move.")
    port: _Port | None = Field(default=None, description="The PACS's DICOM port.")
    called_title: _Title | None = Field(default=None, description="The PACS's AE title.")
    own_title: _Title = Field(
        default="WARDROUND", description="Our own AE title, as the PACS's admin registered it."
    )
    own_port: _Port | None = Field(
        default=None, description="Port on which c-move's images and arriving studies come in."
    )
    own_address: str | None = Field(
        default=None,
        description="Address of this machine that own_port is bound to; null for all of them.",
    )
    listen: Listening = Field(default=Listening(), description="How arriving studies are taken.")
    authority: Path | None = Field(
        default=None, description="PEM file of the hospital's authority, for HTTPS and DICOM TLS."
    )
    certificate: Path | None = Field(
        default=None, description="Our own certificate for DICOM TLS or HTTPS; null for none."
    )
    key: Path | None = Field(default=None, description="The private key of that certificate.")
    tls: bool = Field(default=False, description="Whether the DICOM port speaks TLS.")
    associations: _Associations = Field(
        default=2, description="Associations or connections at a time."
    )
    images_per_second: PositiveFloat | None = Field(
        default=None, description="At most so many images are asked for a second; null: no limit."
    )
    hours: str | None = Field(
        default=None,
        description="Hours of the day in which the PACS may be asked, such as 20:00-06:00.",
    )

    @field_validator("hours")
    @classmethod
    def _two_times(cls, hours: str | None) -> str | None:
        return check_hours(hours)

    @field_validator("folder", "password_file", "authority", "certificate", "key")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return whole_path(path)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        dimse = {"host": self.host, "port": self.port, "called_title": self.called_title}
        by_route: Mapping[str, Mapping[str, object]] = {
            "dicomweb": {"url": self.url},
            "c-get": dimse,
            "c-move": {**dimse, "own_port": self.own_port},
            "folder": {"folder": self.folder},
        }
        needed = by_route[self.route]
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            message = f"route {self.route} needs {', '.join(missing)}"
            raise ValueError(message)
        if self.oauth is not None and self.user is not None:
            message = "user and oauth exclude each other; give one"
            raise ValueError(message)
        if (self.certificate is None) != (self.key is None):
            message = "certificate and key belong together; give both or neither"
            raise ValueError(message)
        return self

"""The section `pacs` of site.yaml: where images come from and where results may go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from common.config_part import Part, PositiveFloat

_Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
_Associations = Annotated[int, Field(strict=True, ge=1, le=8)]
#: PS3.5 6.2: AE, at most 16 characters of the default repertoire without backslash.
_Title = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")]


class PacsConfig(Part):
    """How this site reaches its PACS."""

    route: Literal["dicomweb", "c-get", "c-move"] = Field(
        description="How images are fetched: dicomweb (QIDO-RS and WADO-RS), c-get, or c-move."
    )
    url: str | None = Field(
        default=None,
        description="DICOMweb's root, such as https://pacs.hospital.example/dicom-web.",
    )
    user: str | None = Field(default=None, description="User for DICOMweb; null for none.")
    password_file: Path | None = Field(
        default=None, description="File with that user's password, readable by this user alone."
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

    @field_validator("password_file", "authority", "certificate", "key")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            message = "expected a whole path that begins with /, as the daemon starts elsewhere"
            raise ValueError(message)
        return path

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        needed: dict[str, object] = {"url": self.url}
        if self.route != "dicomweb":
            needed = {"host": self.host, "port": self.port, "called_title": self.called_title}
        if self.route == "c-move":
            needed["own_port"] = self.own_port
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            message = f"route {self.route} needs {', '.join(missing)}"
            raise ValueError(message)
        if (self.certificate is None) != (self.key is None):
            message = "certificate and key belong together; give both or neither"
            raise ValueError(message)
        return self

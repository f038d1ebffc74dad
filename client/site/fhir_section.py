"""How a FHIR R4 server of the hospital is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from client.site.oauth_section import OAuthClient
from client.site.yaml_part import whole_path
from common.config.parts.section import Part


class FhirAddress(Part):
    """A FHIR R4 server, and how it knows us."""

    url: str = Field(description="The server's root, such as https://fhir.hospital.example/r4.")
    token_file: Path | None = Field(
        default=None, description="File with a bearer token, readable by this user alone."
    )
    oauth: OAuthClient | None = Field(
        default=None,
        description="In place of a token: OAuth 2.0 client credentials, by a secret or, as SMART "
        "Backend Services has it, by a private key.",
    )
    authority: Path | None = Field(
        default=None, description="PEM file of the hospital's authority, for HTTPS."
    )

    @field_validator("url")
    @classmethod
    def _https(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
            message = "expected a server's root such as https://fhir.hospital.example/r4"
            raise ValueError(message)
        if parts.username or parts.password:
            message = "holds a password; put a token into token_file"
            raise ValueError(message)
        return url.rstrip("/")

    @field_validator("token_file", "authority")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return whole_path(path)

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token_file is not None and self.oauth is not None:
            message = "token_file and oauth exclude each other; give one"
            raise ValueError(message)
        return self

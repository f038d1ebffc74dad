"""The section `oauth` of site.yaml: this site as a client of an authorization server."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from client.site.yaml_part import whole_path
from common.config.parts.section import Part


class OAuthClient(Part):
    """How access tokens are got: client credentials, by a secret or by a private key."""

    token_url: str = Field(
        description="The authorization server's token endpoint, such as "
        "https://login.hospital.example/oauth2/token."
    )
    client_id: str = Field(min_length=1, description="This site's name there.")
    secret_file: Path | None = Field(
        default=None, description="File with the client's secret, readable by this user alone."
    )
    key_file: Path | None = Field(
        default=None,
        description="In place of a secret: PEM file with the client's private key (RSA, or P-384), "
        "readable by this user alone; as SMART Backend Services asks for it.",
    )
    key_id: str | None = Field(
        default=None, description="The key's name (kid) in the key set that is registered there."
    )
    scope: str | None = Field(
        default=None, description="What is asked for, such as system/*.cruds; null for its usual."
    )
    authority: Path | None = Field(
        default=None,
        description="PEM file of the authority that its certificate comes from; null for those "
        "that this machine trusts.",
    )

    @field_validator("secret_file", "key_file", "authority")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return whole_path(path)

    @field_validator("token_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment:
            message = "expected an address such as https://login.hospital.example/oauth2/token"
            raise ValueError(message)
        if parts.username or parts.password:
            message = "holds a password; put the client's secret into secret_file"
            raise ValueError(message)
        return url

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        if (self.secret_file is None) == (self.key_file is None):
            message = "give either secret_file or key_file"
            raise ValueError(message)
        if self.key_id is not None and self.key_file is None:
            message = "key_id goes with key_file"
            raise ValueError(message)
        return self

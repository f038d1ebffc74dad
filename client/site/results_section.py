"""The section `results` of site.yaml: who beside the PACS is told of a model's findings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from client.site.fhir_section import FhirAddress
from client.site.yaml_part import whole_path
from common.config.parts.section import Part, PositiveFloat

_Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
#: A namespace of HD (HL7 2.5.1, 2.A.33), without what separates fields.
_Name = Annotated[str, Field(max_length=20, pattern=r"^[^|^~\\&\r\n]*$")]
#: MSH-18, of table HL70211.
CharacterSet = Literal["UNICODE UTF-8", "8859/1", "8859/15", "ASCII"]


class FhirReceiver(FhirAddress):
    """A FHIR R4 server that takes reports as a transaction."""

    patient_identifier: str | None = Field(
        default=None,
        description="System of the Patient.identifier that is the images' PatientID, such as "
        "urn:oid:1.2.276.0.76.4.1; the report then refers to that Patient, else it names the "
        "PatientID alone.",
    )


class Hl7Receiver(Part):
    """A receiver of HL7 v2 messages (ORU^R01) by MLLP."""

    host: str = Field(min_length=1, description="Its host.")
    port: _Port = Field(description="Its MLLP port.")
    application: _Name = Field(default="", description="Its name in MSH-5.")
    facility: _Name = Field(default="", description="Its facility in MSH-6.")
    own_application: _Name = Field(default="WARDROUND", description="Our name in MSH-3.")
    own_facility: _Name = Field(default="", description="Our facility in MSH-4.")
    character_set: CharacterSet = Field(
        default="UNICODE UTF-8", description="MSH-18, in which messages are written."
    )
    timeout_seconds: PositiveFloat = Field(
        default=30.0, description="How long its acknowledgement is waited for."
    )
    tls: bool = Field(default=False, description="Whether its port speaks TLS.")
    authority: Path | None = Field(
        default=None, description="PEM file of the hospital's authority, for TLS."
    )
    certificate: Path | None = Field(
        default=None, description="Our own certificate for TLS; null for none."
    )
    key: Path | None = Field(default=None, description="The private key of that certificate.")

    @field_validator("authority", "certificate", "key")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return whole_path(path)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            message = "certificate and key belong together; give both or neither"
            raise ValueError(message)
        if not self.tls and (self.authority or self.certificate):
            message = "authority and certificate go with tls: true"
            raise ValueError(message)
        return self


class ResultReceivers(Part):
    """Who is told of results with --send, beside the PACS."""

    fhir: FhirReceiver | None = Field(
        default=None,
        description="A FHIR R4 server that takes the reports, such as {url: https://HOST/r4, "
        "token_file: /FILE} or with oauth; null for none.",
    )
    hl7: Hl7Receiver | None = Field(
        default=None,
        description="A receiver of HL7 v2 by MLLP, such as {host: HOST, port: 2575, application: "
        "RIS}; null for none.",
    )

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.fhir is not None or self.hl7 is not None

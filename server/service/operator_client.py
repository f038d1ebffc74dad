"""Client of the operator API, for commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast
from urllib.parse import quote

import httpx

from common.platform.errors import ExitCode, TrustRefused, Unreachable, WardroundError
from server.enrolment.certificates import client_context
from server.files.coordinator_yaml import load_settings
from server.files.folder import Folder
from server.files.status_reader import RunView
from server.service.run_book import Ordered

#: Beyond what a run has to save, which `stop` waits for.
_PATIENCE_SECONDS = 60.0

Json = Mapping[str, object]


class Refused(WardroundError):
    """The service said no; the message is its own."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Operator:
    """The calls of the operator's API. Unreachable when the service does not run."""

    def __init__(self, folder: Folder) -> None:
        folder.require()
        settings = load_settings(folder.settings)
        self._address = settings.operator
        try:
            token = folder.token.read_text(encoding="ascii").strip()
        except OSError as error:
            message = (
                f"Cannot read {folder.token}: {error.strerror}. Only the user who made the "
                "coordinator may command it."
            )
            raise TrustRefused(message) from error
        self._client = httpx.Client(
            base_url=f"https://{self._address}",
            verify=client_context(folder),
            headers={"authorization": f"Bearer {token}"},
            timeout=settings.stop_seconds + _PATIENCE_SECONDS,
            trust_env=False,  # the service is on this machine, and no proxy is on the way
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def sites(self) -> Json:
        """Return who belongs, who is connected and whose invitation is open."""
        return self._call("GET", "/api/sites")

    def accept(self, site: str, fingerprint: str) -> Json:
        """Accept a pending site."""
        return self._call("POST", f"/api/sites/{_part(site)}/accept", {"fingerprint": fingerprint})

    def revoke(self, site: str) -> Json:
        """Shut a site out."""
        return self._call("POST", f"/api/sites/{_part(site)}/revoke")

    def order(self, config: str, ordered: Ordered) -> str:
        """Begin a run and return its name."""
        # What is as it always was is left out: the service may be of the release before.
        body = {"config": config, **ordered.model_dump(mode="json", exclude_defaults=True)}
        return str(self._call("POST", "/api/runs", body)["run"])

    def plan(self, config: str, seed: int = 0) -> tuple[list[str], list[str]]:
        """Return what connected sites say to a configuration, as headers, and who is silent."""
        found = self._call("POST", "/api/plan", {"config": config, "seed": seed})
        answers, silent = found["answers"], found["silent"]
        assert isinstance(answers, list)  # noqa: S101 - our own service wrote it
        assert isinstance(silent, list)  # noqa: S101 - likewise
        return [str(header) for header in answers], [str(site) for site in silent]

    def cohorts(self, config: str) -> str:
        """Return what connected sites say of their cohorts, as the text of a Survey."""
        found = self._call("POST", "/api/cohorts", {"config": config})["cohorts"]
        assert isinstance(found, list)  # noqa: S101 - our own service wrote it
        return str(found[0])

    def runs(self) -> tuple[RunView, ...]:
        """Return all runs."""
        with self._explained():
            found = self._client.get("/api/runs")
            _check(found)
        return tuple(RunView.model_validate(view) for view in found.json())

    def run(self, name: str) -> RunView:
        """Return one run."""
        return RunView.model_validate(self._call("GET", f"/api/runs/{_part(name)}"))

    def stop(self, name: str) -> None:
        """Stop a run and wait until it has saved."""
        self._call("POST", f"/api/runs/{_part(name)}/stop")

    def resume(self, name: str, *, waits: bool = False) -> None:
        """Go on with a run."""
        self._call("POST", f"/api/runs/{_part(name)}/resume", {"waits": waits})

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        with self._explained():
            answer = self._client.request(method, path, json=body)
            _check(answer)
        return cast("Json", answer.json())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            if "CERTIFICATE" in str(error):
                message = (
                    f"What answers at {self._address} is not this coordinator's service: {error}. "
                    "Another coordinator may have the port: wardround-coordinator doctor"
                )
                raise TrustRefused(message) from error
            message = (
                f"The coordinator's service does not answer at {self._address}. "
                "Start it with: wardround-coordinator start"
            )
            raise Unreachable(message) from error
        except httpx.TransportError as error:
            message = (
                f"The service at {self._address} broke off: {str(error) or type(error).__name__}. "
                "Its log says why; the same command can be given again."
            )
            raise Unreachable(message) from error


def _part(name: str) -> str:
    """Return a name as one part of a path, whatever was typed."""
    return quote(name, safe="")


def _check(answer: httpx.Response) -> None:
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        message = (
            "The service does not take this operator.token: it runs from another folder, or the "
            "token was changed while it ran. Restart it: wardround-coordinator start"
        )
        raise TrustRefused(message)
    if answer.status_code == httpx.codes.BAD_REQUEST:
        body = answer.json()
        raise Refused(body["error"], ExitCode(body["exit_code"]))
    if answer.status_code == httpx.codes.NOT_FOUND:
        message = f"The service knows nothing of {answer.url.path}. Is the name right?"
        raise Refused(message, ExitCode.WRONG_CONFIGURATION)
    if answer.is_error:
        message = f"The service answered {answer.status_code} to {answer.url.path}; see its log."
        raise Refused(message, ExitCode.RUN_FAILED)

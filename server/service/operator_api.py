"""Operator API: JSON behind the token.

    GET  /api/sites                     who belongs, who is connected, whose invitation is open
    POST /api/sites/NAME/accept         {"fingerprint": "SHA256:..."}
    POST /api/sites/NAME/revoke
    POST /api/invites                   {"sites": ["north"], "hours": 72}
    GET  /api/runs, /api/runs/NAME      run.json, status.json and the last rounds
    POST /api/runs                      {"config": "YAML", "seed": 0, "sites": [], "waits": false,
                                         "priority": 0, "starts_at": "2027-01-31T22:00:00+01:00"}
    POST /api/runs/NAME/resume          {"waits": false}
    POST /api/runs/NAME/stop
    POST /api/plan                      {"config": "YAML", "seed": 0}: what the sites say to it
    POST /api/cohorts                   {"config": "YAML"}: and of their cohorts, in counts
    GET  /metrics                       Prometheus

An error is {"error": "what to do", "exit_code": 2}, with status 400.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from common.config.parts.section import Part
from common.config.run_config import parse_config
from common.messages.enrolment import SiteName
from common.platform.errors import ConfigurationError, RunFailed, WardroundError
from server.files.folder import Folder
from server.files.status_reader import view_of
from server.service.advice import nobody_accepted
from server.service.gateway import Gateway
from server.service.run_book import Ordered
from server.service.supervision import Supervisor

#: Sites read their cohort before they answer, the first time.
_PLAN_SECONDS = 60.0
_LONGEST_INVITATION_HOURS = 24.0 * 30
_Body = TypeVar("_Body", bound=Part)
_Answer = Callable[[Request], Awaitable[Response]]


class AcceptBody(Part):
    """What accepting a site takes."""

    fingerprint: str = Field(max_length=100)


class InviteBody(Part):
    """What inviting sites takes."""

    sites: tuple[SiteName, ...] = Field(min_length=1, max_length=1000)
    hours: float = Field(gt=0, le=_LONGEST_INVITATION_HOURS)


class RunBody(Ordered):
    """What a run takes."""

    config: str


class ResumeBody(Part):
    """What going on with a run takes."""

    waits: bool = False


class OperatorApi:
    """The answers; each is a short method, and `app` puts them on their paths."""

    def __init__(
        self, folder: Folder, gateway: Gateway, supervisor: Supervisor, registry: CollectorRegistry
    ) -> None:
        self._folder = folder
        self._gateway = gateway
        self._supervisor = supervisor
        self._registry = registry

    def app(self) -> Starlette:
        """Return the application behind the operator's guard."""
        table: tuple[tuple[str, str, _Answer], ...] = (
            ("GET", "/api/sites", self._sites),
            ("POST", "/api/sites/{name}/accept", self._accept),
            ("POST", "/api/sites/{name}/revoke", self._revoke),
            ("POST", "/api/invites", self._invite),
            ("GET", "/api/runs", self._runs),
            ("POST", "/api/runs", self._order),
            ("GET", "/api/runs/{name}", self._run),
            ("POST", "/api/runs/{name}/stop", self._stop),
            ("POST", "/api/runs/{name}/resume", self._resume),
            ("POST", "/api/plan", self._plan),
            ("POST", "/api/cohorts", self._cohorts),
            ("GET", "/metrics", self._metrics),
        )
        routes = [Route(path, answer, methods=[method]) for method, path, answer in table]
        return Starlette(routes=routes, exception_handlers={WardroundError: _refusal})

    async def _sites(self, _request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._gateway.overview))

    async def _accept(self, request: Request) -> Response:
        body = await _body(request, AcceptBody)
        site = await run_in_threadpool(
            self._gateway.accept, request.path_params["name"], body.fingerprint
        )
        return JSONResponse(site.facts())

    async def _revoke(self, request: Request) -> Response:
        site = await run_in_threadpool(self._gateway.revoke, request.path_params["name"])
        return JSONResponse(site.facts())

    async def _invite(self, request: Request) -> Response:
        body = await _body(request, InviteBody)
        invites = await run_in_threadpool(self._gateway.invite, body.sites, body.hours)
        return JSONResponse({"invites": invites}, status_code=201)

    async def _runs(self, _request: Request) -> Response:
        def views() -> list[dict[str, object]]:
            names = self._folder.run_names()
            return [view_of(self._folder.run(name)).model_dump(mode="json") for name in names]

        return JSONResponse(await run_in_threadpool(views))

    async def _order(self, request: Request) -> Response:
        body = await _body(request, RunBody)
        config = await run_in_threadpool(parse_config, body.config)
        await run_in_threadpool(self._check_sites, body.sites)
        name = await self._supervisor.order(config, body)
        return JSONResponse({"run": name}, status_code=201)

    async def _run(self, request: Request) -> Response:
        name = request.path_params["name"]
        await run_in_threadpool(self._supervisor.check, name)
        view = await run_in_threadpool(view_of, self._folder.run(name))
        return JSONResponse(view.model_dump(mode="json"))

    async def _stop(self, request: Request) -> Response:
        await self._supervisor.stop(request.path_params["name"])
        return JSONResponse({})

    async def _resume(self, request: Request) -> Response:
        body = await _body(request, ResumeBody)
        await self._supervisor.resume(request.path_params["name"], waits=body.waits)
        return JSONResponse({})

    async def _plan(self, request: Request) -> Response:
        body = await _body(request, RunBody)
        config = await run_in_threadpool(parse_config, body.config)
        await run_in_threadpool(self._check_accepted)
        return JSONResponse(
            await self._supervisor.ask(config.in_force(), _PLAN_SECONDS, seed=body.seed)
        )

    async def _cohorts(self, request: Request) -> Response:
        body = await _body(request, RunBody)
        config = await run_in_threadpool(parse_config, body.config)
        await run_in_threadpool(self._check_accepted)
        found = await self._supervisor.ask(
            config.in_force(), _PLAN_SECONDS, seed=body.seed, cohorts=True
        )
        return JSONResponse(found)

    async def _metrics(self, request: Request) -> Response:
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), media_type=kind)

    def _check_accepted(self) -> None:
        """Refuse to ask where there is nobody to ask."""
        sites = self._gateway.enrolment.sites()
        if not any(site.state == "accepted" for site in sites):
            raise RunFailed(nobody_accepted(sites))

    def _check_sites(self, sites: tuple[str, ...]) -> None:
        known = {s.name for s in self._gateway.enrolment.sites() if s.state == "accepted"}
        missing = sorted(set(sites) - known)
        if missing:
            message = (
                f"Not accepted: {', '.join(missing)}. `wardround-coordinator sites` lists who is."
            )
            raise ConfigurationError(message)


async def _body(request: Request, kind: type[_Body]) -> _Body:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ConfigurationError(places) from error


def _refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, WardroundError)  # noqa: S101 - registered for it only
    body = {"error": str(error), "exit_code": int(error.exit_code)}
    return JSONResponse(body, status_code=400)

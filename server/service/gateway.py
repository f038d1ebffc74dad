"""Flower's SuperLink behind both listeners, in step with who belongs.

sites     -- TLS 1.3 --  SiteGuard      -- DeliveryMiddleware --  Flower's application
operator  -- TLS 1.3 --  OperatorGuard  -- RunGuard -- DeliveryMiddleware --  Flower's application
                                        -- our own API
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from starlette.types import ASGIApp, Scope

from common.platform.errors import WardroundError
from common.platform.logs import log
from server.enrolment.enrolment_pages import enrolment_pages
from server.enrolment.moving import notice_of
from server.enrolment.registry import EnrolledSite, Enrolment, invite_sites
from server.files.coordinator_yaml import Settings
from server.files.folder import Folder
from server.service.answer_allowances import Allowances, Overdraft
from server.service.calls.frequent_calls import (
    FLEET_PULL,
    FLEET_PUSH,
    RUNTIME_PULL,
    RUNTIME_PUSH,
    FrequentCalls,
    Unauthorized,
    fleet_calls,
    runtime_calls,
    task_token,
)
from server.service.calls.object_news import ObjectNews
from server.service.calls.presence import Presence
from server.service.calls.replies import Replies
from server.service.calls.transfers import Transfers
from server.service.listeners import Listeners
from server.service.message_delivery import DeliveryMiddleware, PushSignal
from server.service.operator_guard import OperatorGuard
from server.service.run_guard import RunGuard
from server.service.site_authentication import AcceptedSites, Member
from server.service.site_guard import LARGEST_BODY, SiteGuard
from server.service.superlink import SuperLink, asked_of, refusal_of


class Gateway:
    """Everything that listens; `serve` runs until `stop`."""

    def __init__(self, folder: Folder, settings: Settings) -> None:
        self._folder = folder
        self._settings = settings
        self._listeners = Listeners(folder, settings)
        try:
            self.enrolment = Enrolment(folder.enrolment)
            self.superlink = SuperLink(folder.database)
            self._members = AcceptedSites()
            self._refreshing = threading.Lock()
            self._to_sites, self._to_runs = PushSignal(), PushSignal()
            self._transfers, self._news, self._replies = Transfers(), ObjectNews(), Replies()
            self._presence = Presence(self.superlink.state.acknowledge_nodes)
            self.refresh_members()
        except BaseException:
            self._listeners.close()
            raise
        self._allowances = Allowances()

    async def serve(self, ours: ASGIApp) -> None:
        """Answer until `stop`; `ours` answers /api/... and /metrics of the operator."""
        telling = asyncio.ensure_future(self._presence.keep_telling())
        try:
            await self._listeners.serve(self._site_app(), self._operator_app(ours))
        finally:
            telling.cancel()

    async def started(self) -> None:
        """Return once both listeners answer."""
        await self._listeners.started()

    def stop(self) -> None:
        """Finish what is under way and return from `serve`."""
        self._listeners.stop()
        self._to_sites.close()
        self._to_runs.close()

    def renew(self) -> None:
        """Show the certificate that is in the folder now."""
        self._listeners.renew()

    def invite(self, sites: Sequence[str], hours: float) -> dict[str, str]:
        """Return a new invitation for each site, in one line."""
        return invite_sites(self._folder, self._settings, self.enrolment, sites, hours)

    def overview(self) -> dict[str, object]:
        """Return who belongs, who is connected and whose invitation is open."""
        online = self.superlink.online()
        sites = [
            {**site.facts(), "online": site.state == "accepted" and site.name in online}
            for site in self.enrolment.sites()
        ]
        return {"sites": sites, "invited": self.enrolment.invited()}

    def accept(self, site: str, fingerprint: str) -> EnrolledSite:
        """Let a pending site in whose fingerprint was compared."""
        accepted = self.enrolment.accept(site, fingerprint)
        self.refresh_members()
        log(__name__).info("site accepted", site=site, fingerprint=fingerprint)
        return accepted

    def revoke(self, site: str) -> EnrolledSite:
        """Shut a site out, from its next request on."""
        revoked = self.enrolment.revoke(site)
        self.refresh_members()
        log(__name__).warning("site revoked", site=site, fingerprint=revoked.fingerprint)
        return revoked

    def refresh_members(self) -> None:
        """Make the guard and Flower know exactly the accepted sites."""
        with self._refreshing:  # or an older list could come after a newer one
            sites = self.enrolment.sites()
            accepted = [site for site in sites if site.state == "accepted"]
            self._members.replace(
                self.superlink.register(site.name, site.public_key) for site in accepted
            )
            for site in sites:
                if site.state != "accepted":
                    self.superlink.unregister(site.public_key)

    def _notice(self) -> bytes | None:
        """Return what sites are told of a move; a file that cannot be read is told in the log."""
        try:
            notice = notice_of(self._folder)
        except WardroundError as error:
            log(__name__).error("cannot tell of a move", reason=str(error))
            return None
        return None if notice is None else notice.to_json()

    def _site_app(self) -> ASGIApp:
        pages = enrolment_pages(
            self.enrolment,
            coordinator=self._settings.name,
            authority=self._folder.ca.read_bytes,
            notice=self._notice,
            changed=self.refresh_members,
        )

        def node(scope: Scope) -> int:
            member = self._members.shown_by(scope)
            if member is None:
                raise Unauthorized
            return member.node_id

        def caller(scope: Scope) -> str:
            member = self._members.shown_by(scope)
            return "" if member is None else str(member.node_id)

        state = self.superlink.state
        fleet = DeliveryMiddleware(
            FrequentCalls(
                self.superlink.app,
                fleet_calls(state, self._transfers, self._replies),
                node,
                self._news,
                LARGEST_BODY,
            ),
            pull=FLEET_PULL,
            push=FLEET_PUSH,
            caller=caller,
            incoming=self._to_sites,
            pushed=lambda _: self._to_runs.announce(),
            presence=self._presence,
        )

        def refusal(path: str, body: bytes, size: int | None, member: Member) -> Overdraft | None:
            return refusal_of(path, body, size, member, self._allowances)

        return SiteGuard(fleet, self._members, pages=pages, refusal_of=refusal)

    def _operator_app(self, ours: ASGIApp) -> ASGIApp:
        state = self.superlink.state

        def pushed(body: bytes) -> None:
            self._to_sites.announce(map(str, asked_of(body).values()))

        runtime = DeliveryMiddleware(
            FrequentCalls(
                self.superlink.app,
                runtime_calls(state, self._transfers, self._replies),
                task_token,
                self._news,
                LARGEST_BODY,
            ),
            pull=RUNTIME_PULL,
            push=RUNTIME_PUSH,
            caller=task_token,
            incoming=self._to_runs,
            pushed=pushed,
        )
        runs = RunGuard(runtime, self._allowances, LARGEST_BODY)
        token = self._folder.token.read_text(encoding="ascii").strip()
        return OperatorGuard(flower=runs, ours=ours, token=token)

"""What `doctor` looks at in a registry: whether it answers, whom it lets in, its clock, what this account may do there.

What an account may do is tried, with an artifact of a few bytes that is removed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial

from pipeline.checkup import Check, Finding, ok, unknown, wrong
from pipeline.errors import NotAllowedError, WorldError
from pipeline.matrix import Target
from pipeline.names import trial_repositories
from pipeline.release_index import NEWEST
from pipeline.world.harbor import VERSIONS, VERSIONS_STAY, Harbor
from pipeline.world.oci import Manifest, qualified
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import artifact, put_artifact
from pipeline.world.registry_connection import Greeting
from pipeline.world.registry_credentials import docker_config_path, read_credentials

TRIAL_TYPE = "application/vnd.flagos.release.trial.v1+json"
TRIAL_TAG = "2000.01.01.1"  # shaped like a release, for the rules of a registry that guard those
SKEW_S = 60.0  # tokens of registries live for minutes, and waivers end on a day


@dataclass(frozen=True)
class Visit:
    """One registry, asked once for its greeting."""

    host: str
    open_registry: Callable[[str], Registry]

    @cached_property
    def registry(self) -> Registry:
        return self.open_registry(self.host)

    @cached_property
    def greeting(self) -> Greeting | WorldError:
        """A registry that is down is waited for once."""
        try:
            return self.registry.greeting()
        except WorldError as error:
            return error

    def end(self) -> None:
        if not isinstance(self.greeting, WorldError):
            self.registry.close()

    @property
    def silent(self) -> Finding:
        return unknown(f"{self.host} does not answer", "see above")


def registry_checks(
    target: Target,
    open_registry: Callable[[str], Registry],
    now: Callable[[], datetime],
    *,
    is_public: bool,
    mends: bool,
) -> Iterator[Check]:
    """`is_public`: others depend on this target. `mends`: what can be mended from here, is."""
    staging, public = (place.partition("/") for place in trial_repositories(target))
    visits = {host: Visit(host, open_registry) for host in (staging[0], public[0])}
    for host, visit in visits.items():
        yield Check(f"registry {host}", partial(_answers, visit))
        yield Check(f"credentials of {host}", partial(_credentials, visit))
        yield Check(f"clock of {host}", partial(_clock, visit, now))
    visit = visits[public[0]]
    yield Check("push to staging", partial(_may_push, visits[staging[0]], staging[2]))
    if target.kind == "harbor":
        project = public[2].partition("/")[0]
        yield Check("project of public images", partial(_project, visit, project))
        yield Check("immutable tag rule", partial(_rule, visit, public[2], mends=mends))
    guards = partial(_guards_versions, visit, public[2], is_public=is_public)
    yield Check("version tags in public", guards)
    for visit in visits.values():
        visit.end()


def _answers(visit: Visit) -> Finding:
    if isinstance(visit.greeting, WorldError):
        raise visit.greeting
    return ok("answers")


def _credentials(visit: Visit) -> Finding:
    """Present or absent, and whether they are taken; never what they are."""
    has_some = read_credentials(docker_config_path(), visit.host) is not None
    word = "present" if has_some else "none"
    if isinstance(visit.greeting, WorldError):
        return unknown(f"{word}, not tried: the registry does not answer", "see above")
    if visit.greeting.lets_in:
        return ok(f"{word}, and accepted" if has_some else "none, and none are asked for")
    seen = "present, and refused" if has_some else "none, and the registry asks for some"
    return wrong(seen, f"`docker login {visit.host}` with an account that may push")


def _clock(visit: Visit, now: Callable[[], datetime]) -> Finding:
    if isinstance(visit.greeting, WorldError):
        return visit.silent
    told = visit.registry.greeting().time  # asked anew, for the first one is seconds old by now
    if told is None:
        return unknown("the registry tells no time", "compare this machine's clock with another's")
    ahead_s = (now() - told.astimezone(UTC)).total_seconds()
    if abs(ahead_s) <= SKEW_S:
        return ok(f"within {SKEW_S:.0f} s of this machine's")
    side = "behind" if ahead_s > 0 else "ahead of"
    return wrong(
        f"{abs(ahead_s):.0f} s {side} this machine's",
        "set the clock of the one that is wrong (NTP); logins and dates in records depend on it",
    )


def _may_push(visit: Visit, repository: str) -> Finding:
    if isinstance(visit.greeting, WorldError):
        return visit.silent
    trial = _put_trial(visit.registry, repository, b"1", TRIAL_TAG)
    if visit.registry.head(repository, TRIAL_TAG) != trial.digest:
        return wrong(f"{repository} took a push and does not show it", "look at the registry's log")
    left = _left_over(visit.registry, repository, trial)
    return ok(f"tried in {repository}{left}")


def _guards_versions(visit: Visit, repository: str, *, is_public: bool) -> Finding:
    if isinstance(visit.greeting, WorldError):
        return visit.silent
    registry, first, second = visit.registry, _trial(b"1"), _trial(b"2")
    held = registry.head(repository, TRIAL_TAG)
    try:
        if held is None:
            _put_trial(registry, repository, b"1", TRIAL_TAG)
        other = first if held == second.digest else second
        _put_trial(registry, repository, b"1" if other is first else b"2", None)
    except NotAllowedError:
        return unknown(
            "this account may not write there, so it overwrites nothing",
            f"promotion needs an account that may push to {visit.host}/{repository.rpartition('/')[0]}",
        )
    is_overwritten = registry.can_overwrite(repository, TRIAL_TAG, other)
    left = "".join({_left_over(registry, repository, one) for one in (second, first)})
    if not is_overwritten:
        return ok(f"cannot be overwritten, tried in {repository}{left}")
    if not is_public:
        return ok(f"only promote itself guards them, as is usual for a local registry{left}")
    return wrong(
        f"this account can overwrite them, tried in {repository}{left}",
        "make version tags immutable in the registry; on Harbor doctor -- --fix does (docs/harbor.md)",
    )


def _project(visit: Visit, name: str) -> Finding:
    if isinstance(visit.greeting, WorldError):
        return visit.silent
    found = _harbor(visit).project(name)
    if found is None:
        return wrong(f"{name} is absent", "its administrator makes it (docs/harbor.md)")
    if not found.is_public:
        return wrong(
            f"{name} is private: readers of a card cannot pull", "make it public in Harbor"
        )
    return ok(f"{name} is public")


def _rule(visit: Visit, repository: str, *, mends: bool) -> Finding:
    if isinstance(visit.greeting, WorldError):
        return visit.silent
    harbor, (project, _, name) = _harbor(visit), repository.partition("/")
    rules = [rule for rule in harbor.immutable_rules(project) if not rule.disabled]
    for rule in rules:
        if rule.holds(name, NEWEST):
            seen = f"a rule of {project} ({rule.sentence}) holds `{NEWEST}`, which releases move"
            return wrong(seen, f"narrow it to {VERSIONS} in Harbor (docs/harbor.md)")
    if VERSIONS_STAY in rules:
        return ok(f"tags {VERSIONS} of {project} are immutable")
    if mends:
        harbor.add_immutable_rule(project, VERSIONS_STAY)
        if VERSIONS_STAY in harbor.immutable_rules(project):
            return ok(f"added: tags {VERSIONS} of {project} are immutable from now on")
    to_do = "doctor -- --fix adds it, with an account that may (docs/harbor.md)"
    if rules:
        return unknown(
            f"{project} has other rules than ours; the next line tries what they do", to_do
        )
    return wrong(f"{project} has none", to_do)


def _harbor(visit: Visit) -> Harbor:
    if not isinstance(visit.registry, Harbor):
        raise TypeError(visit.host)
    return visit.registry


def _trial(content: bytes) -> Manifest:
    return artifact(TRIAL_TYPE, content)


def _put_trial(registry: Registry, repository: str, content: bytes, tag: str | None) -> Manifest:
    trial = _trial(content)
    put_artifact(registry, repository, trial, content, tag)
    return trial


def _left_over(registry: Registry, repository: str, trial: Manifest) -> str:
    """Remove a trial; what is said where that cannot be done. The next trial finds it, and adds none."""
    try:
        if registry.head(repository, trial.digest) is None or registry.delete(
            repository, trial.digest
        ):
            return ""
    except WorldError:
        pass
    return f"; {qualified(repository, TRIAL_TAG)} stays, for it cannot be deleted"

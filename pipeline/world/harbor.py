"""Harbor's own interface, beside that of OCI: its projects, immutable tag rules, descriptions, and tags that go.

Source: api/v2.0/swagger.yaml of goharbor/harbor; `tests/fixtures/harbor` holds the part that is used here.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests
from pydantic import BaseModel, ConfigDict, TypeAdapter

from pipeline.errors import WorldError
from pipeline.matrix import Target
from pipeline.world.registry import AT_ONCE, Registry
from pipeline.world.registry_connection import Call
from pipeline.world.registry_login import UNASKED

T = TypeVar("T")
API = "/api/v2.0"
PAGE = 100  # the most that Harbor gives
VERSIONS = "{[0-9]*,v[0-9]*}"  # tags that are release names; `latest`, `withdrawn`, `rel-…`, `sha256-…` stay movable


class Selector(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str = "doublestar"
    decoration: str
    pattern: str

    def takes(self, name: str) -> bool:
        is_like = re.fullmatch(_expression(self.pattern), name) is not None
        return is_like != self.decoration.lower().endswith("excludes")


class ImmutableRule(BaseModel):
    """Tags that may be pushed once and never moved or deleted. Of each list Harbor reads the first selector alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    disabled: bool = False
    action: str = "immutable"
    template: str = "immutable_template"
    tag_selectors: tuple[Selector, ...]
    scope_selectors: Mapping[str, tuple[Selector, ...]]

    def holds(self, repository: str, tag: str) -> bool:
        """Whether a tag, once there, neither moves nor goes. `repository` without its project."""
        scopes = self.scope_selectors.get("repository", ())
        if self.disabled or not scopes or not self.tag_selectors:
            return False
        return scopes[0].takes(repository) and self.tag_selectors[0].takes(tag)

    @property
    def sentence(self) -> str:
        """What Harbor's page of rules shows of it."""
        scopes = self.scope_selectors.get("repository", ())
        told = [f"{one.decoration} {one.pattern}" for one in (*scopes[:1], *self.tag_selectors[:1])]
        return ", ".join(told)


VERSIONS_STAY = ImmutableRule(
    tag_selectors=(Selector(decoration="matches", pattern=VERSIONS),),
    scope_selectors={"repository": (Selector(decoration="repoMatches", pattern="**"),)},
)


class Project(BaseModel):
    """A project, as far as a release depends on it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    metadata: Mapping[str, str | None] = {}

    @property
    def is_public(self) -> bool:
        return self.metadata.get("public") == "true"


class Repository(BaseModel):
    description: str = ""


class Harbor(Registry):
    """A Harbor by its host; one per thread. Repositories are those of OCI, with the project in front."""

    keeps_referrers = False  # deleting a manifest deletes its signatures and all that refers to it

    def project(self, name: str) -> Project | None:
        """None if it is absent, or hidden from this account."""
        doing = f"read the project {name}"
        response = self._ask(_call("GET", f"/projects/{name}", doing, (200, 404)))
        return self._parsed(response, Project) if response.ok else None

    def immutable_rules(self, project: str) -> tuple[ImmutableRule, ...]:
        rules: list[ImmutableRule] = []
        for page in range(1, 100):
            response = self._ask(
                _call(
                    "GET",
                    f"/projects/{project}/immutabletagrules",
                    f"list the immutable tag rules of project {project}",
                    params={"page": str(page), "page_size": str(PAGE)},
                )
            )
            found = self._parsed(response, list[ImmutableRule])
            rules += found
            if len(found) < PAGE:
                break
        return tuple(rules)

    def add_immutable_rule(self, project: str, rule: ImmutableRule) -> None:
        doing = f"add an immutable tag rule to project {project}"
        path = f"/projects/{project}/immutabletagrules"
        self._ask(_call("POST", path, doing, (201,), content=rule.model_dump(), once=True))

    def describe(self, repository: str, description: str) -> bool:
        """Set the description of a repository, in Markdown, and read it back; False if it was the same already."""
        if self._description(repository) == description:
            return False
        doing = f"write the description of {repository}"
        content = {"description": description}
        self._ask(_call("PUT", _repository_path(repository), doing, content=content))
        if self._description(repository) != description:
            raise WorldError(
                f"the description of {repository} was written and reads otherwise",
                where=self.host,
                hint="somebody else may be writing it; run the same command again",
            )
        return True

    def delete(self, repository: str, reference: str) -> bool:
        """Also a tag alone, for which Harbor has no OCI call; False if it is immutable."""
        if ":" in reference:
            return super().delete(repository, reference)
        path = f"{_repository_path(repository)}/artifacts/{reference}/tags/{reference}"
        doing = f"delete the tag {repository}:{reference}"
        return self._ask(_call("DELETE", path, doing, (200, 404, 412))).status_code != 412

    def _description(self, repository: str) -> str:
        """Harbor stores it with HTML's signs escaped."""
        doing = f"read the description of {repository}"
        response = self._ask(_call("GET", _repository_path(repository), doing))
        return html.unescape(self._parsed(response, Repository).description)

    def _parsed(self, response: requests.Response, kind: type[T]) -> T:
        try:
            return TypeAdapter(kind).validate_json(response.content)
        except ValueError as error:
            raise WorldError(
                "this is not what Harbor's API description says",
                where=f"{self.host}{urlsplit(response.url).path}",
                details=str(error)[:300],
                hint="is it a Harbor? `kind` of the target in matrix.yaml says so",
            ) from error


def _expression(pattern: str) -> str:
    """A pattern of doublestar v1, the matcher that Harbor uses, as a regular expression."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")"}
    found, depth = "", 0
    for part in re.findall(r"\*\*/|\*\*|\\.|\[[^\]]+\]|.", pattern, re.DOTALL):
        depth += (part == "{") - (part == "}")
        if part == "," and depth:
            found += "|"
        elif part[0] == "[":
            found += f"[{part[1:-1].replace('!', '^', part[1] == '!')}]"
        else:
            found += signs.get(part) or re.escape(part.removeprefix("\\") or part)
    return found


def registry_of(target: Target, host: str, at_once: int = AT_ONCE) -> Registry:
    """A registry of this target: what kind it is, is said of the one that its releases go to."""
    is_harbor = target.kind == "harbor" and host == target.registry.partition("/")[0]
    return (Harbor if is_harbor else Registry)(host, at_once=at_once)


def _repository_path(repository: str) -> str:
    """A repository name with slashes is escaped twice, says the API description."""
    project, _, name = repository.partition("/")
    return f"/projects/{project}/repositories/{quote(quote(name, safe=''), safe='')}"


def _call(
    method: str,
    path: str,
    doing: str,
    accepts: tuple[int, ...] = (200,),
    *,
    content: Mapping[str, Any] | None = None,
    params: Mapping[str, str] | None = None,
    once: bool = False,
) -> Call:
    headers = {"Accept": "application/json"}
    if content is not None:
        headers["Content-Type"] = "application/json"
    return Call(
        method,
        f"{API}{path}",
        doing,
        UNASKED,
        accepts,
        headers=headers,
        params=params or {},
        body=json.dumps(content).encode() if content is not None else None,
        once=once,
    )

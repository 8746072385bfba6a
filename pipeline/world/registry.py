"""The one door to OCI registries: ask, read, mount, copy and write, by digest.

"Absent" (404) is an answer; "may not" (401, 403) and "could not ask" (all else) are WorldErrors.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urljoin, urlsplit

import requests
import tenacity
from pydantic import BaseModel, ConfigDict, Field
from requests.auth import AuthBase

from pipeline.errors import UsageError, WorldError
from pipeline.record import sha256_bytes

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"}

# A registry that is down must be reported in less than 10 s: attempts x connect time + pauses.
ATTEMPTS = 3
CONNECT_TIMEOUT_S = 2.0
DEADLINE_S = 30.0
LAYER_TIMEOUT_S = 300.0
PAUSE = tenacity.wait_exponential_jitter(multiplier=0.2, max=1.0, jitter=0.3)
CHUNK_BYTES = 1 << 20

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"(?P<registry>localhost(?::\d+)?|[\w-]+(?:\.[\w-]+)*:\d+|[\w-]+(?:\.[\w-]+)+|\[[0-9a-fA-F:]+\](?::\d+)?)"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """`registry/repository[:tag][@digest]`, taken apart."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest where there is one."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Take an image reference apart; UsageError unless it names its registry host."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"reading an image reference: {text!r} is none",
            hint="write host[:port]/path[:tag][@sha256:…]; no default registry is assumed",
        )
    return Reference(**match.groupdict())


class Descriptor(BaseModel):
    """A manifest or blob as another manifest names it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    media_type: str = Field(alias="mediaType")
    digest: Digest
    size_bytes: int = Field(alias="size", ge=0)


class Content(BaseModel):
    """The part of a manifest or index that says what belongs to it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    media_type: str | None = Field(alias="mediaType", default=None)
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    digest: str
    media_type: str
    body: bytes

    @property
    def is_index(self) -> bool:
        return self.media_type in (OCI_INDEX, DOCKER_LIST)

    @property
    def content(self) -> Content:
        try:
            content = Content.model_validate_json(self.body)
        except ValueError as error:
            raise self._unreadable(str(error)) from error
        if content.config is None and not self.is_index:
            raise self._unreadable("it has no config")
        return content

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers, each digest once; empty for an index."""
        content = self.content
        named = (*content.layers, *([content.config] if content.config else []))
        return tuple({blob.digest: blob for blob in named}.values())

    def _unreadable(self, details: str) -> WorldError:
        return WorldError(
            f"reading the manifest {self.digest}: {self.media_type} is no image that we understand",
            details=details,
            hint="push it again as an OCI or Docker schema 2 image with sha256 digests",
        )


@dataclass(frozen=True)
class Call:
    """One question to the registry; `doing` is the verb phrase its errors use."""

    method: str
    url: str
    doing: str
    scopes: tuple[str, ...] = ()
    accepts: tuple[int, ...] = (200,)
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | BlobStream | Iterator[bytes] | None = None
    stream: bool = False
    repeatable: bool = True
    timeout_s: float = 10.0


class BlobStream:
    """A blob on its way from one registry to another; hashed as it passes."""

    def __init__(self, response: requests.Response, digest: str, where: str) -> None:
        self._response = response
        self._digest = digest
        self._where = where
        self.passed_bytes = 0

    def body(self) -> BlobStream | Iterator[bytes]:
        """Itself where the length is known, so that it is sent with Content-Length, else chunks."""
        known = "Content-Length" in self._response.headers
        return self if known else iter(self)

    def __len__(self) -> int:
        return int(self._response.headers["Content-Length"])

    def __iter__(self) -> Iterator[bytes]:
        seen = hashlib.sha256()
        try:
            for chunk in self._response.iter_content(CHUNK_BYTES):
                seen.update(chunk)
                self.passed_bytes += len(chunk)
                yield chunk
        except requests.RequestException as error:
            raise WorldError(
                f"could not read blob {self._digest} to its end:"
                f" stopped after {self.passed_bytes} bytes",
                where=self._where,
                details=_without_queries(str(error)),
                hint="run the same command again; blobs that arrived are not sent twice",
            ) from error
        if f"sha256:{seen.hexdigest()}" != self._digest:
            raise _not_what_was_asked(
                self._where, f"blob {self._digest}", f"sha256:{seen.hexdigest()}"
            )


class _Authorization(AuthBase):
    """Our header or none; given always, so that requests never looks into .netrc."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        return request


class Connection:
    """Sends calls to one host: retries, login, and errors that say what was asked."""

    def __init__(
        self,
        base: str,
        config_path: Path,
        sleep: Callable[[float], None],
    ) -> None:
        if not re.fullmatch(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?", base):
            raise UsageError(
                "opening a registry: its base is not a plain host[:port]",
                hint="repository paths belong to the calls, credentials to `docker login`",
            )
        self.host = base
        self.is_local = _is_loopback(base)
        self._origin = f"{'http' if self.is_local else 'https'}://{base}"
        self._config_path = config_path
        login = read_credentials(config_path, base)
        self._basic = login.header if login else None
        self._secrets = [login.pair, login.password] if login else []
        self._authorizations: dict[tuple[str, ...], str] = {}
        self._sleep = sleep
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "flagrelease-pipeline"
        # A blob is compared with its digest as stored, so nobody may decode it on the way.
        self._session.headers["Accept-Encoding"] = "identity"
        # Proxy variables of the environment must not catch loopback traffic.
        self._session.trust_env = not self.is_local

    def close(self) -> None:
        self._session.close()

    def ask(self, call: Call) -> requests.Response:
        try:
            response = self._retrying(call)(self._attempt, call)
        except requests.RequestException as error:
            raise self.could_not(
                call,
                f"no answer: {type(error).__name__}",
                details=self._clean(str(error)),
            ) from error
        if response.status_code not in call.accepts:
            with closing(response):
                raise self._refused(call, response)
        return response

    def _retrying(self, call: Call) -> tenacity.Retrying:
        attempts = ATTEMPTS if call.repeatable else 1
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_passing_fault)
            | tenacity.retry_if_result(_is_passing_answer),
            stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_before_delay(DEADLINE_S),
            wait=_pause_s,
            sleep=self._sleep,
            retry_error_callback=_last_outcome,
        )

    def _attempt(self, call: Call) -> requests.Response:
        response = self._once(call)
        # A body that was streamed is gone and cannot be sent a second time.
        resendable = call.body is None or isinstance(call.body, bytes)
        # An upload location or redirect may lead to another host, which must not learn who we are.
        may_log_in = resendable and self._is_ours(response.url)
        if response.status_code != 401 or not may_log_in or not self._log_in(call, response):
            return response
        response.close()
        return self._once(call)

    def _once(self, call: Call) -> requests.Response:
        url = urljoin(self._origin, call.url)
        header = self._authorizations.get(call.scopes) if self._is_ours(url) else None
        return self._session.request(
            call.method,
            url,
            params=call.params,
            data=call.body,
            headers=call.headers,
            auth=_Authorization(header),
            stream=call.stream,
            timeout=(CONNECT_TIMEOUT_S, call.timeout_s),
        )

    def _is_ours(self, url: str) -> bool:
        return url.startswith(f"{self._origin}/")

    def _log_in(self, call: Call, response: requests.Response) -> bool:
        """Answer a 401's challenge; False if there is nothing new to try."""
        scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        if scheme.lower() == "bearer":
            header = self._bearer(call, dict(re.findall(r'(\w+)="([^"]*)"', rest)))
        else:
            header = self._basic if scheme.lower() == "basic" else None
        is_new = header is not None and header != self._authorizations.get(call.scopes)
        if header is not None:
            self._authorizations[call.scopes] = header
        return is_new

    def _bearer(self, call: Call, challenge: Mapping[str, str]) -> str | None:
        realm = challenge.get("realm", "")
        is_safe = realm.startswith("https://") or _is_loopback(urlsplit(realm).netloc)
        if not is_safe:
            return None
        # A mount reads one repository and writes another; challenges tend to name only the latter.
        scopes = call.scopes or tuple(challenge.get("scope", "").split())
        response = self._session.get(
            realm,
            params={"service": challenge.get("service", ""), "scope": list(scopes)},
            auth=_Authorization(self._basic),
            timeout=(CONNECT_TIMEOUT_S, 10.0),
        )
        if _is_passing_answer(response):
            raise requests.ConnectionError(f"the token server answered {response.status_code}")
        if response.status_code != 200:
            return None
        answer = response.json()
        named = answer if isinstance(answer, dict) else {}
        token = named.get("token") or named.get("access_token")
        if not isinstance(token, str) or not token:
            return None
        self._secrets.append(token)
        return f"Bearer {token}"

    def _refused(self, call: Call, response: requests.Response) -> WorldError:
        answer = f"{response.status_code} {response.reason}"
        said = self._clean(_said(response))
        if response.status_code not in (401, 403):
            return self.could_not(call, f"it answered {answer}", details=said)
        account = "this account" if self._basic else "an anonymous client"
        return WorldError(
            f"{account} may not {call.doing}: the registry answered {answer}",
            where=self.host,
            details=said,
            hint=f"`docker login {self.host}` with an account that may;"
            f" only `auths` in {self._config_path} is read, no credential helper",
        )

    def could_not(self, call: Call, came: str, *, details: str = "") -> WorldError:
        return WorldError(
            f"could not ask the registry to {call.doing}: {came}",
            where=self.host,
            details=details,
            hint=self._hint(came),
        )

    def _hint(self, came: str) -> str:
        if "answered 412" in came:
            return "a policy of the registry blocks it: immutable tag, scan or signature gate"
        if "answered" in came:
            return "try again later; if it stays so, look at the log of the registry"
        if self.is_local:
            return "is it running? `./bootstrap` starts the local one"
        return "check the network and proxy of this machine, and the `registry` of the target"

    def _clean(self, text: str) -> str:
        """A text from outside, without what we sent in confidence."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _without_queries(text)


@dataclass(frozen=True, kw_only=True)
class Login:
    """What `docker login` left for one host."""

    pair: str = field(repr=False)  # base64 of user:password
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        return f"Basic {self.pair}"


def read_credentials(config: Path, host: str) -> Login | None:
    """The entry for a host in `auths` of a Docker client configuration; None without one."""
    try:
        auths = json.loads(config.read_bytes()).get("auths", {})
        entries = (auths.get(name, {}) for name in (host, f"https://{host}"))
        pair = next((entry["auth"] for entry in entries if entry.get("auth")), None)
        return _login(pair) if pair else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError):
        # The cause quotes the file, and with it the secret.
        raise WorldError(
            f"reading credentials for {host}: the file is not a Docker client configuration",
            where=str(config),
            hint=f"mend it, or remove it and run `docker login {host}`",
        ) from None


def _login(pair: str) -> Login:
    """Raises ValueError unless `pair` is base64 of user:password."""
    _, colon, password = base64.b64decode(pair, validate=True).decode().partition(":")
    if not colon or not password:
        raise ValueError("no user:password")
    return Login(pair=pair, password=password)


def _docker_config_path() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _pull(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull",)


def _push(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)


def _named(repository: str, reference: str) -> str:
    return f"{repository}@{reference}" if ":" in reference else f"{repository}:{reference}"


def _is_passing_fault(error: BaseException) -> bool:
    passing = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    )
    return isinstance(error, passing) and not isinstance(error, requests.exceptions.SSLError)


def _is_passing_answer(response: requests.Response) -> bool:
    return response.status_code == 429 or response.status_code >= 500


def _pause_s(state: tenacity.RetryCallState) -> float:
    """Seconds to the next attempt: what Retry-After says, at least our own pause."""
    outcome = state.outcome
    if outcome is None or outcome.failed:
        return PAUSE(state)
    response: requests.Response = outcome.result()
    response.close()
    return max(PAUSE(state), _retry_after_s(response.headers.get("Retry-After", "")))


def _retry_after_s(header: str) -> float:
    if header.isdigit():
        return float(header)
    try:
        return parsedate_to_datetime(header).timestamp() - time.time()
    except ValueError:
        return 0.0


def _last_outcome(state: tenacity.RetryCallState) -> requests.Response:
    if state.outcome is None:
        raise RuntimeError("retrying ended before it began")
    response: requests.Response = state.outcome.result()
    return response


def _said(response: requests.Response) -> str:
    """The registry's own words: code and message of each of its errors."""
    try:
        errors = response.json()["errors"]
        words = [f"{error['code']}: {error.get('message', '')}" for error in errors]
    except (ValueError, KeyError, TypeError, AttributeError, requests.RequestException):
        return ""
    return "\n".join(words)[:500]


def _without_queries(text: str) -> str:
    """Addresses of uploads and redirects carry keys in their query."""
    return re.sub(r"//[^/@\s]+@", "//***@", re.sub(r"\?[^\s)'\"]+", "?…", text))


def _not_what_was_asked(host: str, asked: str, came: str) -> WorldError:
    return WorldError(
        f"asking the registry for {asked}: it gave {came}",
        where=host,
        hint="its storage or a proxy on the way changes content; do not use this image",
    )


class Registry:
    """A registry by its host, such as `127.0.0.1:5000`; one per thread."""

    def __init__(
        self,
        base: str,
        *,
        docker_config: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = base
        self._connection = Connection(base, docker_config or _docker_config_path(), sleep)

    def close(self) -> None:
        self._connection.close()

    def ping(self) -> None:
        """Return if a registry answers; a 401 is an answer."""
        doing = "say whether it is there"
        self._ask(Call("GET", "/v2/", doing, accepts=(200, 401), timeout_s=2.0))

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """The manifest under a tag or digest, its bytes checked; None if absent."""
        response = self._ask(self._manifest_call("GET", repository, reference))
        if response.status_code == 404:
            return None
        digest = f"sha256:{sha256_bytes(response.content)}"
        asked = reference if ":" in reference else digest
        told = response.headers.get("Docker-Content-Digest", digest)
        if not digest == asked == told:
            raise _not_what_was_asked(
                self.host,
                f"manifest {_named(repository, reference)}, told {told}",
                digest,
            )
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(digest=digest, media_type=media_type, body=response.content)

    def head(self, repository: str, reference: str) -> str | None:
        """The digest behind a tag or digest; None if absent."""
        response = self._ask(self._manifest_call("HEAD", repository, reference))
        if response.status_code == 404:
            return None
        told = response.headers.get("Docker-Content-Digest")
        if told is None:
            manifest = self.manifest(repository, reference)
            return manifest.digest if manifest else None
        if ":" in reference and told != reference:
            raise _not_what_was_asked(self.host, f"manifest {reference}", told)
        return told

    def tags(self, repository: str) -> tuple[str, ...]:
        """All tags, sorted; empty if the repository is absent."""
        found: list[str] = []
        seen: set[str] = set()
        url: str | None = f"/v2/{repository}/tags/list?n=100"
        while url is not None:
            doing = f"list the tags of {repository}"
            call = Call("GET", url, doing, _pull(repository), (200, 404))
            response = self._ask(call)
            if response.status_code == 404:
                break
            found += self._tag_names(call, response)
            seen.add(response.url)
            following = response.links.get("next", {}).get("url")
            url = urljoin(response.url, following) if following else None
            if url in seen:
                raise self._connection.could_not(call, "it answered with pages in a circle")
        return tuple(sorted(set(found)))

    def has_blob(self, repository: str, digest: str) -> bool:
        response = self._ask(self._blob_call("HEAD", repository, digest))
        return response.status_code == 200

    def blob(self, repository: str, digest: str) -> bytes:
        """A small blob, such as a config, whole and checked."""
        response = self._ask(self._blob_call("GET", repository, digest, accepts=(200,)))
        seen = f"sha256:{sha256_bytes(response.content)}"
        if seen != digest:
            raise _not_what_was_asked(self.host, f"blob {_named(repository, digest)}", seen)
        return response.content

    def mount_blob(self, repository: str, digest: str, from_repository: str) -> bool:
        """Let `repository` share a blob of another one; False if the registry wants an upload."""
        call = Call(
            "POST",
            f"/v2/{repository}/blobs/uploads/",
            f"mount {digest} from {from_repository} into {repository}",
            _push(repository) + _pull(from_repository),
            (201, 202),
            params={"mount": digest, "from": from_repository},
            repeatable=False,
        )
        response = self._ask(call)
        if response.status_code == 201:
            return True
        self._cancel(repository, self._location(response))
        return False

    def copy_blob(
        self,
        source_repository: str,
        target_repository: str,
        digest: str,
        *,
        target: Registry | None = None,
    ) -> int:
        """Stream a blob into another repository, here or at `target`; returns bytes sent."""
        receiver = target or self
        call = self._blob_call("GET", source_repository, digest, accepts=(200,), stream=True)
        with closing(self._ask(call)) as response:
            stream = BlobStream(response, digest, self.host)
            receiver._upload(target_repository, digest, stream.body())
        return stream.passed_bytes

    def put_blob(self, repository: str, data: bytes) -> str:
        digest = f"sha256:{sha256_bytes(data)}"
        self._upload(repository, digest, data)
        return digest

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; returns the digest."""
        digest = f"sha256:{sha256_bytes(body)}"
        call = Call(
            "PUT",
            f"/v2/{repository}/manifests/{reference}",
            f"store manifest {_named(repository, reference)}",
            _push(repository),
            (201,),
            headers={"Content-Type": media_type},
            body=body,
            timeout_s=30.0,
        )
        told = self._ask(call).headers.get("Docker-Content-Digest", digest)
        if told != digest:
            raise _not_what_was_asked(self.host, f"to store manifest {digest}", told)
        return digest

    def stored_bytes(self, repository: str, digest: str) -> int:
        """Compressed layers and config, as the manifest states them; of an index, its children."""
        manifest = self._present(repository, digest)
        children = manifest.content.manifests
        own = sum(blob.size_bytes for blob in manifest.blobs)
        return own + sum(self.stored_bytes(repository, child.digest) for child in children)

    def config_digest(self, repository: str, digest: str) -> str:
        """The digest that identifies the image wherever it is; an index has none."""
        config = self._present(repository, digest).content.config
        if config is None:
            raise WorldError(
                f"reading the config digest of {_named(repository, digest)}: it is an index",
                where=self.host,
                hint="ask for the manifest of one platform",
            )
        return config.digest

    def _ask(self, call: Call) -> requests.Response:
        return self._connection.ask(call)

    def _present(self, repository: str, digest: str) -> Manifest:
        manifest = self.manifest(repository, digest)
        if manifest is None:
            raise WorldError(
                f"reading manifest {_named(repository, digest)}: the registry does not have it",
                where=self.host,
                hint="build the image again, its registry lost it",
            )
        return manifest

    def _manifest_call(self, method: str, repository: str, reference: str) -> Call:
        return Call(
            method,
            f"/v2/{repository}/manifests/{reference}",
            f"read manifest {_named(repository, reference)}",
            _pull(repository),
            (200, 404),
            headers=ACCEPT,
        )

    def _blob_call(
        self,
        method: str,
        repository: str,
        digest: str,
        *,
        accepts: tuple[int, ...] = (200, 404),
        stream: bool = False,
    ) -> Call:
        return Call(
            method,
            f"/v2/{repository}/blobs/{digest}",
            f"read blob {_named(repository, digest)}",
            _pull(repository),
            accepts,
            stream=stream,
            timeout_s=LAYER_TIMEOUT_S if stream else 10.0,
        )

    def _tag_names(self, call: Call, response: requests.Response) -> list[str]:
        try:
            names = response.json()["tags"] or []
        except (ValueError, KeyError, TypeError) as error:
            raise self._connection.could_not(
                call, "it answered 200 without a list of tags"
            ) from error
        return [str(name) for name in names]

    def _upload(
        self, repository: str, digest: str, body: bytes | BlobStream | Iterator[bytes]
    ) -> None:
        doing = f"take blob {_named(repository, digest)}"
        uploads = f"/v2/{repository}/blobs/uploads/"
        scopes = _push(repository)
        start = Call("POST", uploads, doing, scopes, (202,), repeatable=False)
        send = Call(
            "PUT",
            self._location(self._ask(start)),
            doing,
            scopes,
            (201,),
            headers={"Content-Type": "application/octet-stream"},
            params={"digest": digest},
            body=body,
            repeatable=False,
            timeout_s=LAYER_TIMEOUT_S,
        )
        self._ask(send)

    def _cancel(self, repository: str, location: str) -> None:
        doing = f"cancel an upload to {repository}"
        # The registry clears away uploads by itself some day, so any answer will do.
        any_answer = tuple(range(200, 600))
        scopes = _push(repository)
        self._ask(Call("DELETE", location, doing, scopes, any_answer, repeatable=False))

    def _location(self, response: requests.Response) -> str:
        return urljoin(response.url, response.headers.get("Location", ""))

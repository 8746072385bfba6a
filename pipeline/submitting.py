"""Evaluations at the FlagEval service: sent, followed, shown. It scores whole data sets, and never gives a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import ValidationError

from pipeline.canonical import canonical, write_whole
from pipeline.cell import Cell
from pipeline.errors import StageRefusedError, UsageError
from pipeline.matrix_names import nearest
from pipeline.reporter import Reporter
from pipeline.results import Frozen
from pipeline.world.flageval import ENDINGS, FlagEval
from pipeline.world.flageval_form import DatasetScore, ModelScores, Submission

Word = Literal["submit", "progress", "result", "compare", "stop", "resume"]
Layout = Literal["flat", "eval_infos"]
Domain = Literal["NLP", "MM"]

ANSWERS = "/v1/chat/completions"
NO_VERDICT = (
    "The service gives one score for each data set and no items, so this is no verdict and decides nothing; "
    "nox -s accuracy gives one."
)


class Request(Frozen):
    """One evaluation that the service has accepted."""

    request_id: str
    stack: str
    name: str  # of what is evaluated, at the service
    url: str  # of our server, as the service reaches it
    service: str
    submitted: str  # UTC, ISO 8601


class Requests(Frozen):
    """All of one cell, the newest last."""

    requests: tuple[Request, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One stack of a cell at the service, and the file that keeps the ids of its requests."""

    cell: Cell
    stack: str
    file: Path
    service: FlagEval
    report: Reporter

    def submit(self, url: str | None, *, layout: Layout, tokenizer: str | None) -> None:
        wanted = Submission(
            name=f"{self.cell.model_id}-{self.cell.chip_id}-{self.stack}",
            model=self.cell.served_name,
            eval_url=_answers_url(url),
            tokenizer=tokenizer or self.cell.weights_path,
            domain=self._domain,
            chip=f"{self.cell.chip.title.en}-{self.cell.chip.accelerator}",
            num_concurrent=self.cell.gate.concurrency,
        )
        request_id = self.service.submit(wanted, layout=layout)
        # Said before it is written: on a full disk the id must not be lost.
        self.report.say(f"{self._title} is evaluated as {wanted.name}: request {request_id}")
        accepted = Request(
            request_id=request_id,
            stack=self.stack,
            name=wanted.name,
            url=wanted.eval_url,
            service=self.service.address,
            submitted=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._write((*self._requests(), accepted))
        asked = ", ".join(one.title for one in self.cell.benchmarks.values()) or "none"
        self.report.say(
            f"The service chooses the data sets of {wanted.domain}; benchmarks of the cell: {asked}"
        )
        self.report.say(NO_VERDICT)

    def progress(self, ids: Sequence[str]) -> None:
        request_id = self._one(ids)
        state = self.service.progress(request_id, self._domain)
        if state.finished:
            ending = ENDINGS.get(state.status, state.status)
            self.report.say(f"{request_id}: finished, {ending}; the word `result` shows the scores")
            return
        seen = f"{state.datasets_progress} {state.running_dataset} {state.running_progress}"
        self.report.say(f"{request_id}: running, {' '.join(seen.split()) or 'nothing done yet'}")

    def result(self, ids: Sequence[str]) -> None:
        self._print(self.service.result(self._one(ids)))

    def compare(self, ids: Sequence[str]) -> None:
        """Of two stacks: the reference's request, then this one's."""
        if len(ids) not in (0, 2):
            raise UsageError(
                f"compare takes no id, or those of two requests; got {len(ids)}",
                where=self._title,
                hint="the reference's first; without any, the newest of both stacks are compared",
            )
        reference = self.cell.chip.reference
        if not ids and reference == self.stack:
            raise UsageError(
                f"{reference} is the reference itself",
                where=self._title,
                hint="name another stack with --stack",
            )
        both = ids or [self._newest(reference), self._newest(self.stack)]
        self._print(self.service.compare(both))

    def stop(self, ids: Sequence[str]) -> None:
        self.service.stop(request_id := self._one(ids))
        self.report.say(f"{request_id} is stopped")

    def resume(self, ids: Sequence[str]) -> None:
        self.service.resume(request_id := self._one(ids))
        self.report.say(f"{request_id} goes on")

    @property
    def _title(self) -> str:
        return f"{self.cell.id} {self.stack}"

    @property
    def _domain(self) -> Domain:
        return "NLP" if self.cell.model.modality == "text" else "MM"

    def _one(self, ids: Sequence[str]) -> str:
        if len(ids) > 1:
            raise UsageError(f"this word takes one id, got {len(ids)}", where=self._title)
        return ids[0] if ids else self._newest(self.stack)

    def _newest(self, stack: str) -> str:
        submit = f"nox -s flageval -- {self.cell.chip_id} {self.cell.model_id} submit"
        found = [one for one in self._requests() if one.stack == stack]
        if not found:
            raise StageRefusedError(
                f"no request of the stack {stack} is known here",
                where=str(self.file),
                hint=f"name its id, or run {submit} --stack {stack} --url <your server>",
            )
        if found[-1].service != self.service.address:
            raise UsageError(
                f"request {found[-1].request_id} was sent to {found[-1].service}, not to {self.service.address}",
                where=str(self.file),
                hint="set FLAGOS_EVAL_PLATFORM to that service, or name an id of this one",
            )
        return found[-1].request_id

    def _requests(self) -> tuple[Request, ...]:
        if not self.file.exists():
            return ()
        try:
            return Requests.model_validate_json(self.file.read_bytes()).requests
        except ValidationError as error:
            raise UsageError(
                "the file of requests cannot be read",
                where=str(self.file),
                hint="move it away; ids can be named on the command line",
            ) from error

    def _write(self, requests: tuple[Request, ...]) -> None:
        whole = Requests(requests=requests).model_dump(mode="json")
        write_whole(self.file, canonical(whole) + b"\n")

    def _print(self, scores: Mapping[str, ModelScores]) -> None:
        known = {_plain(one.title): name for name, one in self.cell.benchmarks.items()}
        self.report.table(
            COLUMNS,
            [
                (
                    model,
                    one.dataset,
                    _number(one.accuracy),
                    _number(one.diff),
                    ENDINGS.get(one.status, one.status),
                    known.get(_plain(one.dataset), "-"),
                )
                for model, found in scores.items()
                for one in found.details or (DatasetScore(dataset="-", status=found.status),)
            ],
        )
        self.report.say(NO_VERDICT)


COLUMNS = ("model", "data set", "score", "difference", "ended", "benchmark of the cell")


def check_stack(cell: Cell, stack: str) -> str:
    if stack not in cell.chip.stacks:
        raise UsageError(
            f"no stack is called {stack}", where=cell.id, hint=nearest(stack, cell.chip.stacks)
        )
    return stack


def _answers_url(url: str | None) -> str:
    """The address of chat completions, whichever part of it was given."""
    parts = urlsplit(url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"the address of your server is needed, got {url}"
            if url
            else "the address of your server is needed",
            where="--url",
            hint="it has to be reachable from the service: --url http://<host>:<port>",
        )
    base = str(url).rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")
    return f"{base}{ANSWERS}"


def _plain(name: str) -> str:
    """FlagEval and cards write the same name with other capitals, dashes and spaces."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

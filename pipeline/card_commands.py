"""Cards without a stage: written anew from their records, checked, published where they changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.cell import Cell
from pipeline.cells import select
from pipeline.errors import UsageError
from pipeline.flow import ask_consent
from pipeline.options import Options
from pipeline.project import Project
from pipeline.reporter import Reporter
from pipeline.selection import project_of

if TYPE_CHECKING:
    from pipeline.fetching import Source
    from pipeline.rewriting import Card


def do_cards(options: Options, report: Reporter) -> int:
    """Write cards anew from their records, or check them; then the changed ones to the hubs."""
    from pipeline.rewriting import cards_of, differences, refuse_stale

    if options.check and options.publish:
        raise UsageError("--check writes nothing and --publish does", hint="leave one of them out")
    if options.publish:
        ask_consent(options, "publish")
    project = project_of(options)
    cells = select(project.matrix, options.cells)
    if not options.check and (options.command == "card" or options.publish):
        _ask_registry(project, cells, options, report)
    cards = cards_of(project, cells, options.release)
    if options.check:
        refuse_stale(cards, project.root)
        report.say(f"cards: {len(cards)}, all as their records give them")
        return 0
    shown = list(differences(cards, project.root))
    changed = [card for card in cards if card.changed]
    for card in changed:
        card.write()
    report.say("\n".join([*shown, f"cards: {len(cards)}, changed: {len(changed)}"]))
    if options.publish:
        _publish_cards(_source(project, options), cards, report)
    return 0


def _source(project: Project, options: Options) -> Source:
    from pipeline.fetching import Source
    from pipeline.world.harbor import registry_of

    target = project.target(options.target)
    registry = registry_of(target, target.registry.partition("/")[0])
    return Source(project=project, target=target, registry=registry)


def _ask_registry(
    project: Project, cells: Sequence[Cell], options: Options, report: Reporter
) -> None:
    """For records that are not here, and for what was withdrawn meanwhile, perhaps from another machine."""
    from pipeline.fetching import fetch_where_none
    from pipeline.withdrawals import ask_for_withdrawals

    source = _source(project, options)
    for cell in cells if options.command == "card" else ():
        fetch_where_none(source, cell, options.release, report.say)
    ask_for_withdrawals(project, cells, options.release, source.registry, report.say)


def _publish_cards(source: Source, cards: Sequence[Card], report: Reporter) -> None:
    from pipeline.republishing import publish_changed
    from pipeline.world.hubs import hubs_of

    publish_changed(source, cards, hubs_of(source.target.hubs, source.project.root), report.say)

"""Commands on actions: what was proposed, planned and done; approve, apply, undo; the log and its seals."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runbook.cli.base import Json, app, console, log_to_stderr, print_json
from runbook.errors import CheckFailed, RunbookError

if TYPE_CHECKING:
    from runbook.actions.acting import Standing
    from runbook.actions.plan import Effect, Order, Plan
    from runbook.dispatch.desk import Desk

actions_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Guarded changes: approve, apply, undo.")
app.add_typer(actions_app, name="actions")

Action = Annotated[str, typer.Argument(metavar="ACTION", help="<run id>:<action>, as runbook actions list shows it.")]


def _at_desk(steps: Callable[[Desk], Awaitable[Any]], *, first_resume: bool = False) -> Any:
    """Take these steps at a desk; with ``first_resume`` what died half-way is verified before, and never done again."""
    import asyncio

    from runbook import settings
    from runbook.dispatch.desk import open_desk

    async def opened() -> Any:
        async with open_desk(settings.load()) as desk:
            if first_resume:
                await desk.resume(_actor())
            return await steps(desk)

    log_to_stderr("WARNING")
    return asyncio.run(opened())


def _actor() -> str:
    import getpass

    return f"person:{getpass.getuser()}"


@actions_app.command("list")
def list_(run: Annotated[str, typer.Argument(help="Only those of this run.")] = "", as_json: Json = False) -> None:
    """What the newest runs proposed, and how far it has come."""

    async def steps(desk: Desk) -> list[tuple[Order, Standing]]:
        found = await desk.orders_of(run) if run else await desk.lately()
        return [(order, await desk.acting.standing(order.id)) for order in found]

    rows = _at_desk(steps)
    from runbook.dispatch.desk import told

    if as_json:
        print_json({"actions": [told(order, standing) for order, standing in rows]})
        return
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(Column("action", overflow="fold", no_wrap=True), "state", "what", "cause", box=None, pad_edge=False)
    for order, standing in rows:
        by_hand = "" if _can_be_applied(order) else "  (by hand)"
        table.add_row(order.id, standing.state, Text(f"{order.title}{by_hand}"), Text(_why(order)))
    console().print(table if rows else "nothing was proposed, and nothing ordered")


@actions_app.command("show")
def show(action: Action, as_json: Json = False) -> None:
    """A proposal, its plan, and every step that was taken."""

    async def steps(desk: Desk) -> tuple[Order, Standing]:
        order = await desk.order(action)
        return order, await desk.acting.standing(order.id)

    from runbook.dispatch.desk import told

    order, standing = _at_desk(steps)
    if as_json:
        print_json(told(order, standing))
        return
    out = console()
    out.print(f"{order.title}\n{order.kind}, {standing.state}; {_why(order) or 'for no cause'}", markup=False)
    if standing.plan is not None:
        _print_plan(standing.plan)
    elif order.by_hand:
        out.print(f"\nby hand:\n{order.by_hand}", markup=False)
    for entry in standing.entries:
        out.print(f"{entry.at:%Y-%m-%d %H:%M:%S} {entry.event:9} {entry.actor}  {_said(entry.detail)}", markup=False)


@actions_app.command("order")
def order(
    run: Annotated[str, typer.Argument(help="The run that it is about: its symptom tells afterwards what it did.")],
    kind: Annotated[str, typer.Argument(help="silence, acknowledge, note, post, reload, pgbouncer.pause, …")],
    target: Annotated[
        list[str] | None, typer.Option("-t", "--target", metavar="KEY=VALUE", help="Or one JSON object.")
    ] = None,
    title: Annotated[str, typer.Option(help="What it is called in lists.")] = "",
    as_json: Json = False,
) -> None:
    """Order what no run proposed: a silence (-t minutes=60 -t comment=known), a note, a pause. Changes nothing yet."""
    from runbook.actions.orders import typed

    targets = typed(kind, target or [])

    async def steps(desk: Desk) -> tuple[Order, Standing]:
        made = await desk.make(run, kind, targets, _actor(), title=title)
        return made, await desk.acting.standing(made.id)

    made, standing = _at_desk(steps)
    from runbook.dispatch.desk import told

    if as_json:
        print_json(told(made, standing))
        return
    out = console()
    out.print(f"ordered: {made.title}\n  {_said(standing.entries[0].detail)}", markup=False)
    out.print(f"Nothing is changed yet. To see what would be done, and approve it:\nrunbook actions approve {made.id}",
              markup=False)  # fmt: skip


@actions_app.command("plan")
def plan(action: Action, as_json: Json = False) -> None:
    """Look at the targets as they are now, and say exactly what would be done. Changes nothing."""

    async def steps(desk: Desk) -> Plan:
        made: Plan = await desk.acting.plan(await desk.order(action), _actor())
        return made

    made = _at_desk(steps)
    print_json(made.as_dict()) if as_json else _print_plan(made)


@actions_app.command("approve")
def approve(
    action: Action,
    digest: Annotated[str, typer.Option("--plan", help="The digest of the plan that you have seen.")] = "",
    as_json: Json = False,
) -> None:
    """Approve a plan: the one with this digest, or one that is made and shown now."""

    async def steps(desk: Desk) -> str:
        approved = digest
        if not approved:
            made = await desk.acting.plan(await desk.order(action), _actor())
            _print_plan(made, stderr=as_json)
            typed = typer.prompt(f"To approve it type {made.confirmation}", err=True)
            if " ".join(typed.split()) != made.confirmation:
                raise RunbookError("that is not what is to be changed: nothing is approved")
            approved = made.digest
        await desk.acting.approve(action, approved, _actor())
        return approved

    approved = _at_desk(steps)
    if as_json:
        print_json({"action": action, "state": "approved", "plan": approved})
    else:
        console().print(f"approved; within minutes: runbook actions apply {action}")


@actions_app.command("apply")
def apply(action: Action, as_json: Json = False) -> None:
    """Do what was approved, once, and see by a fresh run of the runbook whether it helped."""

    async def steps(desk: Desk) -> tuple[list[Effect], dict[str, Any] | None]:
        order = await desk.order(action)
        effects = await desk.acting.apply(order, _actor())
        done = any(effect.done for effect in effects)
        return effects, await desk.acting.verify(order, _actor()) if done else None

    effects, verified = _at_desk(steps, first_resume=True)
    if as_json:
        print_json({"action": action, "effects": [vars(effect) for effect in effects], "verified": verified})
        return
    _print_effects(effects)
    if verified is not None:
        console().print(f"{verified['verdict']}: {verified['said']} (run {verified['run_id'] or '–'})", markup=False)


@actions_app.command("verify")
def verify(action: Action, as_json: Json = False) -> None:
    """See again whether what was applied holds, and what became of the symptom."""

    async def steps(desk: Desk) -> dict[str, Any]:
        return await desk.acting.verify(await desk.order(action), _actor())

    told = _at_desk(steps)
    print_json(told) if as_json else console().print(f"{told['verdict']}: {told['said']}", markup=False)


@actions_app.command("undo")
def undo(action: Action, as_json: Json = False) -> None:
    """Put back what was changed, where it is still as it was left."""

    async def steps(desk: Desk) -> list[Effect]:
        return await desk.acting.undo(await desk.order(action), _actor())

    effects = _at_desk(steps)
    if as_json:
        print_json({"action": action, "effects": [vars(effect) for effect in effects]})
    else:
        _print_effects(effects)


@actions_app.command("audit")
def audit(
    check: Annotated[bool, typer.Option("--verify", help="Hold every seal against its entry.")] = False,
    as_json: Json = False,
) -> None:
    """The newest step of each action; with --verify, whether anybody has edited the log."""
    if not check:
        entries = _at_desk(lambda desk: desk.log.latest())
        if as_json:
            print_json({"entries": [{**vars(entry), "at": entry.at.isoformat()} for entry in entries]})
            return
        for entry in entries:
            console().print(f"{entry.at:%Y-%m-%d %H:%M:%S} {entry.event:9} {entry.actor}  {entry.action}", markup=False)
        return
    count, problems = _at_desk(lambda desk: desk.log.check())
    if as_json:
        print_json({"entries": count, "problems": problems})
    else:
        for problem in problems:
            console().print(problem, markup=False)
        console().print(f"{count} entries, {len(problems)} problems")
    if problems:
        raise CheckFailed(f"the log of actions does not hold: {problems[0]}")


# -- how it is told ----------------------------------------------------------------------------------------------------


def _can_be_applied(order: Order) -> bool:
    from runbook.actions.kinds import KINDS

    return order.kind in KINDS


def _why(order: Order) -> str:
    """For which cause it was proposed, or who ordered it."""
    return f"ordered by {order.ordered_by}" if order.ordered_by else f"{order.cause} {order.tier}".strip()


def _print_plan(made: Plan, *, stderr: bool = False) -> None:
    out = console(stderr=stderr)
    for target in made.draft.targets:
        out.print(f"  {target.shown}\n    → {target.change}", markup=False)
    for line in made.draft.left_alone:
        out.print(f"  left alone: {line}", markup=False)
    for risk in made.draft.risks:
        out.print(f"  risk: {risk}", markup=False)
    out.print(f"  undo: {made.draft.undo}", markup=False)
    out.print(f"  plan {made.digest}, holds until {made.expires_at:%H:%M:%S} UTC", markup=False)


def _print_effects(effects: Sequence[Effect]) -> None:
    for effect in effects:
        console().print(f"{'done' if effect.done else 'left alone'}: {effect.target}: {effect.said}", markup=False)


def _said(detail: Mapping[str, Any]) -> str:
    """What an entry says, in a line."""
    if "said" in detail:
        return f"{detail['verdict']}: {detail['said']}"
    if "effects" in detail:
        return "; ".join(f"{one['target']}: {one['said']}" for one in detail["effects"])
    if "plan" in detail:
        return f"plan {str(detail['plan']['digest'])[:12]}"
    if "ordered_by" in detail:
        return f"{detail['kind']} {json.dumps(detail['targets'], ensure_ascii=False)}"
    return str(detail.get("reason") or detail.get("digest", "")[:12] or ", ".join(detail.get("targets", [])))

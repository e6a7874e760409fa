"""Proposed actions as cards with buttons, where a broker is there to act; their static HTML stands beside them.

A click is answered on a thread of its own, so that no cell and no other click waits. Nothing acts here: each button
asks the broker for one step, and the card shows how far the action has come, or why the step was refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runbook import controls, views
from runbook.broker_client import BrokerClient
from runbook.controls import button, visible
from runbook.errors import RunbookError
from runbook.result import Findings

Told = Mapping[str, Any]


def show(findings: Findings | None, run: Mapping[str, Any], broker: BrokerClient) -> None:
    """Show the actions of a run as cards; as static HTML, with the reason, where the broker does not take them."""
    proposed = [] if findings is None else findings.as_dict()["actions"]
    if not proposed:
        views.actions(findings)
        return
    try:
        offered = broker.offer(run)
    except RunbookError as error:
        views.actions(findings, note=f"Nothing can be done from here: {error}")
        return
    display_cards([Card(action, told, broker) for action, told in zip(proposed, offered, strict=True)], proposed)


def order(wish: Mapping[str, Any], run: Mapping[str, Any], broker: BrokerClient | None) -> None:
    """Order what the run did not propose, and show it as a card; without a broker, what does the same elsewhere."""
    if broker is None:
        views.order(wish, note="Nothing is ordered from here: no broker is there.")
        return
    try:
        broker.offer(run)
        told = broker.order(wish)
    except RunbookError as error:
        views.order(wish, note=f"Not ordered: {error}")
        return
    display_cards([Card(told["action"], told, broker)], [told["action"]], mark='<div class="rb-order">')


def display_cards(cards: Sequence[Card], proposed: Sequence[Mapping[str, Any]], *, mark: str = "") -> None:
    """One output: the widgets for a live front end, the static HTML for every other reader.

    Parameters
    ----------
    mark
        How the static HTML begins, where it is not what the run proposed: that is drawn anew when it is published.
    """
    import ipywidgets
    from IPython.display import display

    from runbook.reporting.readings import actions_html

    box = ipywidgets.VBox([card.widget for card in cards])
    titles = "; ".join(str(action["title"]) for action in proposed)
    bundle = dict(box._repr_mimebundle_())
    static = f"{mark}{actions_html(proposed)}{'</div>' if mark else ''}"
    display(bundle | {"text/html": static, "text/plain": f"{'ordered' if mark else 'proposed'}: {titles}"}, raw=True)


class Card:
    """One action: what it is, what to type, the buttons, what became of it.

    Parameters
    ----------
    action
        As proposed in the findings.
    told
        How far it has come, by the broker.
    """

    def __init__(self, action: Mapping[str, Any], told: Told, broker: BrokerClient) -> None:
        self._action = action
        self._broker = broker
        self._id = str(told["id"])
        self.told = told
        self._build()
        self._show()

    def _build(self) -> None:
        import ipywidgets as widgets

        title = str(self._action["title"])
        # As wide as the card and no wider: a wide table scrolls in itself.
        within = {"width": "auto", "min_width": "0"}
        self.head, self.foot, self.state = (widgets.HTML(layout=within) for _ in range(3))
        self._title = title
        self.plan = button("Plan", title, f"Look at the targets as they are now; changes nothing. {title}", self._plan)
        self.typed = widgets.Text(
            continuous_update=True,
            style={"description_width": "initial"},
            layout={"width": "auto", "min_width": "18em", "flex": "0 1 26em"},
        )
        self.apply = button("Apply", title, f"Do it, once the name is typed. {title}", self._apply, style="danger")
        self.verify = button("Verify", title, f"Run the runbook again and measure the symptom. {title}", self._verify)
        self.undo = button("Undo", title, f"Put back what was changed. {title}", self._undo, style="warning")
        self._buttons = (self.plan, self.apply, self.verify, self.undo)
        row = widgets.HBox(
            [self.plan, self.typed, self.apply, self.verify, self.undo],
            layout={"flex_flow": "row wrap", "align_items": "center", "margin": "4px 0"},
        )
        self.widget = widgets.VBox(
            [self.head, self.foot, row, self.state],
            layout={"border": "1px solid var(--jp-border-color2, #d0d7de)", "padding": "8px 14px", "margin": "6px 0",
                    "max_width": "72rem"},
        )  # fmt: skip

    # -- the steps ----------------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        self._take("Looking at the targets …", lambda: self._broker.plan(self._id))

    def _apply(self) -> None:
        digest, typed = str((self.told.get("plan") or {}).get("digest", "")), str(self.typed.value)
        self._take("Applying …", lambda: self._broker.apply(self._id, digest=digest, typed=typed))

    def _verify(self) -> None:
        self._take("The runbook runs again to measure the symptom …", lambda: self._broker.verify(self._id))

    def _undo(self) -> None:
        self._take("Undoing …", lambda: self._broker.undo(self._id))

    def _take(self, doing: str, step: Callable[[], Told]) -> None:
        """Take a step on a thread of its own; until it is over, no other one can be asked for."""
        self._lock(True)
        self.state.value = controls.status(doing)
        controls.beside_cells("card", lambda: self._taken(step))

    def _taken(self, step: Callable[[], Told]) -> None:
        said = ""
        try:
            self.told = step()
        except Exception as error:  # noqa: BLE001 - whatever it is belongs into the card, not into a lost thread
            why = str(error) if isinstance(error, RunbookError) else type(error).__name__
            said = controls.alarm(f"Not done: {why}")
            self._ask_again()
        self.state.value = said
        self._show()
        self._lock(False)

    def _ask_again(self) -> None:
        """A step that failed may have left something: the card shows how far the action has really come."""
        try:
            self.told = self._broker.told(self._id)
        except RunbookError:
            return

    # -- what is seen -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        from runbook.reporting.action_card import progress_html, proposal_html

        told, state = self.told, str(self.told["state"])
        applicable, confirm = bool(told["applicable"]), str(told.get("confirm") or "")
        self.head.value = controls.STYLE + proposal_html(self._action, told)
        self.foot.value = progress_html(told)
        planned = applicable and bool(told.get("plan")) and state in ("proposed", "approved")
        done = applicable and state in ("applied", "verified")
        visible(self.plan, applicable and state not in ("applied", "verified", "undone"))
        visible(self.typed, planned)
        visible(self.apply, planned)
        visible(self.verify, done)
        visible(self.undo, done and bool(told.get("reversible")))
        self.typed.description = f"Type {confirm} to confirm"
        self.typed.placeholder = confirm
        if not planned:
            self.typed.value = ""
        controls.name(self.plan, "Plan again" if told.get("plan") else "Plan", self._title)

    def _lock(self, locked: bool) -> None:
        for control in (*self._buttons, self.typed):
            control.disabled = locked

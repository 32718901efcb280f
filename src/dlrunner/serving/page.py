"""The page of a served run: its columns, and a form to try it. It loads nothing from elsewhere."""

from __future__ import annotations

import html
import json
from typing import Any

from dlrunner.predictor import RowField
from dlrunner.serving.files import takes_files
from dlrunner.serving.service import Service

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
th { border-bottom: 1px solid; } textarea, pre { font: 14px/1.4 ui-monospace, monospace; width: 100%; }
textarea { height: 10rem; box-sizing: border-box; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
"""
SCRIPT = """
const ask = async (path, request) => {
  const shown = document.querySelector("pre");
  try {
    const answer = await fetch(path, {method: "POST", ...request});
    shown.textContent = answer.status + " " + JSON.stringify(await answer.json(), null, 2);
  } catch (error) { shown.textContent = String(error); }
};
document.querySelector("button").onclick = () => {
  const body = document.querySelector("textarea").value;
  ask("predict", {headers: {"Content-Type": "application/json"}, body});
};
const files = document.querySelector("input");
if (files) files.onchange = () => {
  const body = new FormData();
  for (const file of files.files) body.append("image", file);
  ask("predict-files", {body});
};
"""


def page(service: Service) -> str:
    """Return the page as HTML."""
    known = service.description()
    metric = f"{known['metric']} {known['value']:.4f}" if known["value"] is not None else ""
    age = f"finished {known['age_days']:g} days ago" if known["age_days"] is not None else ""
    synthetic = "trained on synthetic data" if known["synthetic_data"] else ""
    about = ", ".join(filter(None, [known["task"], metric, age, synthetic]))
    rows = "".join(_row(field) for field in service.fields)
    files = "<p><input type=file accept='image/*' multiple></p>" if takes_files(service.fields) else ""
    example = json.dumps({"rows": [example_row(service)]}, indent=1, ensure_ascii=False)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(known['run'])}</title><style>{STYLE}</style>"
        f"<h1>{_text(known['run'])}</h1><p>{_text(about)}</p>"
        "<p><code>POST /predict</code> predicts rows, <code>GET /health</code> describes the run; "
        "<a href=openapi.json>openapi.json</a> describes both.</p>"
        f"<table><tr><th>column<th>type<th>may be null<th>must be there<th></tr>{rows}</table>"
        f"<h2>Try it</h2>{files}<textarea spellcheck=false>{_text(example)}</textarea><p><button>Predict</button></p>"
        f"<pre></pre><script>{SCRIPT}</script></html>"
    )


def example_row(service: Service) -> dict[str, Any]:
    """Return a row with an example of each column that must be there."""
    usual = {"number": 0, "text": "", "boolean": False, "id": "1", "image": ""}
    return {
        field.name: usual[field.type] if field.example is None else field.example
        for field in service.fields
        if not field.is_optional
    }


def _row(field: RowField) -> str:
    kind = "text or whole number" if field.type == "id" else "base64" if field.type == "image" else field.type
    can_be_null, must_be = "yes" if field.may_be_missing else "no", "no" if field.is_optional else "yes"
    cells = (field.name, kind, can_be_null, must_be, field.description)
    return f"<tr>{''.join(f'<td>{_text(cell)}' for cell in cells)}</tr>"


def _text(value: str) -> str:
    return html.escape(value)

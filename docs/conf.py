"""The site: ``make docs``, or rosdoc2."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

project = "panoptic_ros"
author = "panoptic_ros contributors"
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
napoleon_use_ivar = True
myst_heading_anchors = 3
exclude_patterns = ["_build", "generated"]
html_theme = "furo"
html_title = "panoptic_ros"
autodoc_typehints = "none"
autodoc_mock_imports = ["panoptic_ros.msg"]
suppress_warnings = ["myst.header"]


def write_interfaces() -> None:
    """Write the pages that would otherwise be typed twice: parameters and messages."""
    from panoptic_ros.ros.parameters import Parameters

    generated = DOCS / "generated"
    generated.mkdir(exist_ok=True)
    lines = ["| parameter | default | what | changes |", "|---|---|---|---|"]
    for field in fields(Parameters):
        meta = field.metadata
        what = meta["description"]
        if meta["words"]:
            what += f" One of {', '.join(f'`{word}`' for word in meta['words'])}."
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        cells = (f"`{field.name}`", f"`{default!r}`", what, meta["applies"].value)
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    (generated / "parameters.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    messages = []
    for path in sorted((DOCS.parent / "msg").glob("*.msg")):
        messages += [f"### {path.stem}", "", "```", path.read_text(encoding="utf-8"), "```", ""]
    (generated / "messages.md").write_text("\n".join(messages), encoding="utf-8")


write_interfaces()

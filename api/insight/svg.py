"""Parts of every drawing: a self-contained SVG without scripts and external resources. Pure.

It is light or dark like the reader's system. Names come from workflows and may contain anything. They can
only become text, because the document is built as a tree, and characters that XML does not allow are
replaced.
"""

import re
import unicodedata
from collections.abc import Iterable
from itertools import accumulate
from xml.etree import ElementTree

NAMESPACE = "http://www.w3.org/2000/svg"

_STYLE = """
svg{--paper:#fff;--card:#f8fafc;--rim:#cbd5e1;--ink:#0f172a;--faint:#5b6b80;--line:#9aa8ba;--rail:#e2e8f0;
--completed:#15803d;--skipped:#5f9ea0;--running:#2563eb;--pending:#94a3b8;--failed:#dc2626;--cancelled:#b45309;
font-family:ui-sans-serif,system-ui,'Segoe UI',Helvetica,Arial,sans-serif;background:var(--paper)}
@media (prefers-color-scheme:dark){svg{--paper:#0d1420;--card:#172131;--rim:#344256;--ink:#e6edf6;
--faint:#9fb0c5;--line:#56677e;--rail:#2a384c;--completed:#3fb968;--skipped:#5fb3b3;--running:#5b9bff;
--pending:#64748b;--failed:#f26d6d;--cancelled:#e0a040}}
.paper{fill:var(--paper)}.card{fill:var(--card);stroke:var(--rim)}.rail{fill:var(--rail)}
.edge{fill:none;stroke:var(--line);stroke-width:1.3}.tip{fill:var(--line)}
.name{font:500 13px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:var(--ink)}
.head{font-size:16px;font-weight:600;fill:var(--ink)}.note{font-size:11.5px;fill:var(--faint)}
.end{text-anchor:end}.count{font-variant-numeric:tabular-nums}
.sign{fill:none;stroke:var(--paper);stroke-width:1.7;stroke-linecap:round;stroke-linejoin:round}
.completed{fill:var(--completed)}.skipped{fill:var(--skipped)}.running{fill:var(--running)}
.failed{fill:var(--failed)}.cancelled{fill:var(--cancelled)}.pending{fill:var(--rail)}
circle.pending{fill:none;stroke:var(--pending);stroke-width:1.6}
.card.is-failed{stroke:var(--failed);stroke-width:1.6}.card.is-running{stroke:var(--running);stroke-width:1.6}
@media (prefers-reduced-motion:no-preference){rect.running{animation:breathe 1.6s ease-in-out infinite}
@keyframes breathe{50%{opacity:.45}}}
"""

MARGIN = 24.0
HEAD = 62.0

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""https://www.w3.org/TR/xml/#charsets"""


def document(width: float, height: float, heading: str, subheading: str) -> ElementTree.Element:
    """An empty drawing of this size, with its heading."""
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": NAMESPACE,
            "viewBox": f"0 0 {width:.0f} {height:.0f}",
            "width": f"{width:.0f}",
            "height": f"{height:.0f}",
            "role": "img",
        },
    )
    add(svg, "title", text=f"{heading}: {subheading}")
    add(svg, "style", text=_STYLE)
    add(svg, "rect", _class="paper", width="100%", height="100%")
    add(svg, "text", _class="head", x=MARGIN, y=32, text=shortened(heading, int((width - 48) / 10)))
    add(svg, "text", _class="note count", x=MARGIN, y=51, text=subheading)
    return svg


def encoded(svg: ElementTree.Element) -> bytes:
    content: bytes = ElementTree.tostring(svg, encoding="utf-8", xml_declaration=True)
    return content


def add(
    parent: ElementTree.Element, tag: str, *, text: str | None = None, **attributes: str | float
) -> ElementTree.Element:
    """A new element; `_class` stands for `class`, `marker_end` for `marker-end`."""
    named = {
        name.removeprefix("_").replace("_", "-"): value if isinstance(value, str) else f"{value:.5g}"
        for name, value in attributes.items()
    }
    element = ElementTree.SubElement(parent, tag, named)
    if text is not None:
        element.text = _NOT_XML.sub("\ufffd", text)
    return element


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"


def shortened(text: str, most: int) -> str:
    """As much of it as fits into so many `cells`."""
    text = " ".join(text.split())
    if cells(text) <= most:
        return text
    widths = accumulate(cells(letter) for letter in text)
    fitting = sum(width < most for width in widths)
    return f"{text[:fitting]}…"


def cells(text: Iterable[str]) -> int:
    """Its width in letters of a monospaced font."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)

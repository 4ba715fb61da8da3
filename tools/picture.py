"""Write docs/images/memory-chart.svg, the picture in README.md: a memory chart as the site draws it.

python -m tools.picture [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from kaito_catalog.catalog.reading import read_catalog
from kaito_catalog.site import chart
from kaito_catalog.site.figures import plan_figures
from kaito_catalog.system import files

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "memory-chart.svg"
MODEL = "llama-3.3-70b-instruct"
_LEGEND = (
    ("weights", "weights"),
    ("overheads", "CUDA, NCCL, activations, graphs"),
    ("kv", "KV cache of one request"),
)
_MARGIN, _LEGEND_HEIGHT = 12, 34
_STYLE = """
svg { --text: #57606a; --strong: #1f2328; --back: #ffffff; --line: #d0d7de;
  --weights: #3d6fb6; --overheads: #c08a2d; --kv: #3f9c8f; }
@media (prefers-color-scheme: dark) { svg { --text: #9198a1; --strong: #f0f6fc; --back: #0d1117; --line: #3d444d;
  --weights: #5d8fd6; --overheads: #cf9c44; --kv: #4fb0a2; } }
text { font: 12px sans-serif; fill: var(--text); }
.back { fill: var(--back); }
.kc-strong { fill: var(--strong); paint-order: stroke; stroke: var(--back); stroke-width: 4px; stroke-linejoin: round; }
.kc-grid { stroke: var(--line); }
.kc-budget { stroke: var(--strong); stroke-width: 1.5; stroke-dasharray: 5 4; }
.kc-longest { stroke: var(--strong); stroke-dasharray: 2 3; }
.kc-weights { fill: var(--weights); }
.kc-overheads { fill: var(--overheads); }
.kc-kv { fill: var(--kv); }
"""


def picture() -> str:
    """The chart with its colours and its legend, in light and dark."""
    catalog = read_catalog(ROOT / "catalog")
    entry = catalog.entry(MODEL)
    assert entry is not None
    figures = plan_figures(entry, catalog.shared)
    assert figures.chart is not None
    drawn = str(chart.svg(figures.chart))
    inner = drawn.partition(">")[2].removesuffix("</svg>")
    title = re.sub(
        r"<title[^>]*>[^<]*</title>",
        f"<title>{MODEL} on {figures.chart.gpu_count} × {figures.chart.gpu}</title>",
        inner,
    )
    width, height = chart.WIDTH + 2 * _MARGIN, chart.HEIGHT + 2 * _MARGIN + _LEGEND_HEIGHT
    legend, x = [], 60
    for kind, words in _LEGEND:
        y = chart.HEIGHT + 22
        legend.append(f'<rect class="kc-{kind}" x="{x}" y="{y - 10}" width="12" height="12" rx="2"/>')
        legend.append(f'<text x="{x + 18}" y="{y}">{words}</text>')
        x += 46 + 6 * len(words)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img">\n<style>{_STYLE}</style>\n<rect class="back" width="{width}" height="{height}" rx="6"/>\n'
        f'<g transform="translate({_MARGIN} {_MARGIN})">{title}{"".join(legend)}</g>\n</svg>\n'
    )


def main() -> int:
    """Write the picture; with --check exit 1 where it is another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where the picture is another"
    )
    options = parser.parse_args()
    if options.check:
        return 0 if PICTURE.read_text(encoding="utf-8") == picture() else 1
    PICTURE.parent.mkdir(exist_ok=True)
    files.write_text(PICTURE, picture())
    print("docs/images/memory-chart.svg written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

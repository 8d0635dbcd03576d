# SPDX-License-Identifier: MIT
"""What was measured: a table for the terminal, a page for the browser."""
import html
import os
import platform
import time
from dataclasses import dataclass

from pyconc import __version__


@dataclass
class Figure:
    name: str
    unit: str
    standard: float
    pyconc: float
    equal: bool
    standard_way: str
    less_is_better: bool = False

    @property
    def ratio(self):
        """How many times better pyconc is."""
        above, below = (self.standard, self.pyconc) if self.less_is_better else (self.pyconc, self.standard)
        return above / below if below else float("inf")


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine():
    return (f"pyconc {__version__}, {platform.python_implementation()} {platform.python_version()}, "
            f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}")


def cells(figure):
    return (f"{number(figure.standard)} {figure.unit}", f"{number(figure.pyconc)} {figure.unit}",
            f"{figure.ratio:.2f}×", "yes" if figure.equal else "NO")


HEADINGS = "What, and the standard way", "Standard library", "pyconc", "Better", "Equal"


def table(figures):
    """The figures as a rich table."""
    from rich.table import Table
    made = Table(title=machine(), title_justify="left")
    for i, heading in enumerate(HEADINGS):
        made.add_column(heading, justify="right" if 1 <= i <= 3 else "left", no_wrap=i > 0)
    for figure in figures:
        made.add_row(f"{figure.name}\n[dim]{figure.standard_way}[/]", *cells(figure),
                     style=None if figure.equal else "bold red")
    return made


LONGEST = 8     # times better: a longer bar would leave nothing of the others


def chart(figures):
    """A bar for each figure: how many times better, with a line at 1 where the standard library is."""
    row, left, width = 44, 4, 640
    scale = width / LONGEST
    bars = []
    for i, figure in enumerate(figures):
        y, long = i * row + 16, min(figure.ratio, LONGEST) * scale
        more = " →" if figure.ratio > LONGEST else ""
        bars.append(f'<text x="{left}" y="{y}">{html.escape(figure.name)}</text>'
                    f'<rect x="{left}" y="{y + 5}" width="{long:.1f}" height="14" rx="2"/>'
                    f'<text x="{left + long + 6:.1f}" y="{y + 17}">{figure.ratio:.2f}×{more}</text>')
    height, line = len(figures) * row + 20, left + scale
    return (f'<svg viewBox="0 0 {width + 120} {height}" role="img" aria-label="How many times better than the standard '
            f'library">{"".join(bars)}<line x1="{line:.1f}" x2="{line:.1f}" y1="0" y2="{height}"/></svg>')


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>pyconc beside the standard library</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }}
svg {{ width: 100%; font-size: 13px }} rect {{ fill: #2a7de1 }} line {{ stroke: #c0392b; stroke-dasharray: 4 3 }}
table {{ border-collapse: collapse; font-size: 14px }} th, td {{ padding: .35rem .7rem; border-bottom: 1px solid #ddd;
text-align: left }} td:nth-child(n+2):nth-child(-n+4) {{ text-align: right; white-space: nowrap }}
.wrong {{ background: #fbdcd8 }} p {{ color: #51606e }}
</style></head><body><h1>pyconc beside the standard library</h1>
<p>{machine}, {date}. The bars say how many times better pyconc is; the dashed line is the standard library.</p>
{chart}
<table><tr>{headings}</tr>{rows}</table>
</body></html>
"""


def page(figures):
    """The figures as a page that needs nothing else."""
    rows = []
    for figure in figures:
        data = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(figure))
        rows.append(f"<tr{'' if figure.equal else ' class=wrong'}><td>{html.escape(figure.name)}<br>"
                    f"<small>{html.escape(figure.standard_way)}</small></td>{data}</tr>")
    return PAGE.format(machine=html.escape(machine()), date=time.strftime("%Y-%m-%d %H:%M"), chart=chart(figures),
                       headings="".join(f"<th>{heading}</th>" for heading in HEADINGS), rows="".join(rows))

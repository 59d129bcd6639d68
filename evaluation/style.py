"""One look for plots, videos and reports: a light page, few lines, and colours that colour-blind readers tell apart."""

from __future__ import annotations

from typing import Any

# Okabe & Ito's palette, "Color Universal Design" (2008), without its yellow, which vanishes on white.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
PAPER, INK, MUTED, FAINT = "#FFFFFF", "#22272E", "#68707C", "#E4E7EB"

# Matplotlib settings, applied only around each figure. Any, for matplotlib 3.11 types the keys and 3.10 does not.
STYLE: Any = {
    "figure.facecolor": PAPER,
    "figure.dpi": 160,
    "savefig.dpi": 160,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}

"""The figures of a page.

Whatever a figure shows of the database goes through `label`: plotly reads text as a dialect of HTML.
Backgrounds are clear and text is a grey that can be read on white and on black, so one figure serves both themes.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from prunesearch.report.contents import StudyContents

# Okabe and Ito (2008): told apart by colour-blind readers too. Black and yellow vanish in one theme or the other.
_PALETTE = ("#0080c8", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
_GREY = "#7a7a7a"
_CLEAR = "rgba(0, 0, 0, 0)"
_FAINT = "rgba(128, 128, 128, 0.25)"
_LONGEST = 32
_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]],  # the default ones include an upload
}
_HOVER = (
    "trial %{customdata[0]}<br>score %{y:.6g}<br>%{customdata[1]:,} MACs (%{customdata[2]:.1%})"
    "<br>%{customdata[3]:,} parameters (%{customdata[4]:.1%})"
)


def label(text: str) -> str:
    """Text of the database as plotly may have it: nothing in it is markup, and it leaves room for the figure."""
    return html.escape(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def colours(studies: Sequence[StudyContents]) -> dict[str, str]:
    """A colour for each study, the same in every figure of a page."""
    return {study.name: _PALETTE[i % len(_PALETTE)] for i, study in enumerate(studies)}


def history(studies: Sequence[StudyContents], colour: Mapping[str, str]) -> go.Figure:
    """Score of every trial, and the best so far, against the trial's number."""
    figure = _figure("Trial", "Score (higher is better)")
    for study in studies:
        numbers = [trial.number for trial, _ in study.scored]
        figure.add_scatter(
            x=numbers,
            y=list(accumulate((score for _, score in study.scored), max)),
            mode="lines",
            name=label(study.name),
            legendgroup=study.name,
            line={"color": colour[study.name], "width": 2, "shape": "hv"},
            hoverinfo="skip",
        )
        figure.add_trace(_points(study, numbers, colour[study.name], showlegend=False))
    return figure


def score_against_macs(studies: Sequence[StudyContents], colour: Mapping[str, str]) -> go.Figure:
    """Score of every trial against its MACs."""
    figure = _figure("MACs", "Score (higher is better)")
    for study in studies:
        macs = [trial.cost.macs for trial, _ in study.scored]
        figure.add_trace(_points(study, macs, colour[study.name]))
    return figure


def kept_widths(studies: Sequence[StudyContents], colour: Mapping[str, str]) -> go.Figure:
    """Percent of each group's channels that the winners of studies of one network keep."""
    groups = studies[0].space.groups
    figure = _figure("", "Channels kept, %")
    for study in studies:
        if study.winner is None:
            continue
        kept = study.winner.structure
        figure.add_bar(
            x=list(range(len(groups))),
            y=[100 * width / group.width for width, group in zip(kept, groups, strict=True)],
            name=label(study.name),
            marker={"color": colour[study.name]},
            customdata=[(width, group.width, label(group.name)) for width, group in zip(kept, groups, strict=True)],
            hovertemplate="%{customdata[2]}: %{customdata[0]:,} of %{customdata[1]:,} channels (%{y:.1f}%)",
        )
    figure.add_hline(y=100, line={"color": _GREY, "width": 1, "dash": "dot"})
    # Numbered, not named: names that `label` shortens to the same text must stay apart.
    ticks = {"tickvals": list(range(len(groups))), "ticktext": [label(group.name) for group in groups]}
    figure.update_xaxes(tickangle=-90, showgrid=False, **ticks)
    figure.update_yaxes(rangemode="tozero")
    return figure


def as_html(figure: go.Figure, name: str) -> Markup:
    """The element and the script that draw a figure on a page that has plotly.js; safe to insert as it is."""
    return Markup(figure.to_html(config=_CONFIG, include_plotlyjs=False, full_html=False, div_id=name))


def _points(study: StudyContents, x: Sequence[int], colour: str, **style: Any) -> go.Scatter:
    """The scored trials as small faint points, the winner among them as a diamond."""
    full = study.unpruned
    wins = [trial is study.winner for trial, _ in study.scored]
    return go.Scatter(
        x=x,
        y=[score for _, score in study.scored],
        mode="markers",
        name=label(study.name),
        legendgroup=study.name,
        marker={
            "color": colour,
            "size": [12 if win else 6 for win in wins],
            "symbol": ["diamond" if win else "circle" for win in wins],
            "opacity": [1.0 if win else 0.45 for win in wins],
            "line": {"width": 0},
        },
        customdata=[
            (
                trial.number,
                trial.cost.macs,
                trial.cost.macs / max(1, full.macs),
                trial.cost.params,
                trial.cost.params / max(1, full.params),
            )
            for trial, _ in study.scored
        ],
        hovertemplate=_HOVER,
        **style,
    )


def _figure(x_title: str, y_title: str) -> go.Figure:
    axis = {"gridcolor": _FAINT, "zeroline": False, "linecolor": _GREY, "automargin": True}
    return go.Figure(
        layout={
            "template": "none",
            "paper_bgcolor": _CLEAR,
            "plot_bgcolor": _CLEAR,
            "font": {"color": _GREY, "size": 13, "family": "system-ui, sans-serif"},
            "margin": {"l": 8, "r": 8, "t": 32, "b": 8},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"},
            "showlegend": True,
            "dragmode": False,  # a finger on a figure scrolls the page
            "modebar": {"bgcolor": _CLEAR, "color": _GREY},
            "xaxis": {**axis, "title": {"text": x_title}},
            "yaxis": {**axis, "title": {"text": y_title}},
        }
    )

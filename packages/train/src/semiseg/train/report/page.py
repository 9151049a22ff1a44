"""The page of a report: one HTML file without scripts or fonts, which loads nothing from elsewhere."""

import math
from collections.abc import Iterable
from html import escape
from pathlib import Path

from semiseg.train.report.charts import difference, label_efficiency, training
from semiseg.train.report.papers import claims
from semiseg.train.report.pictures import pictures, swatch
from semiseg.train.report.sentences import again, facts, finding, lead, listing, notes
from semiseg.train.report.study import Cell, Study
from semiseg.train.sweep.figures import DARK, LIGHT, svg
from semiseg.train.sweep.intervals import Estimate, estimate

_LIGHT = LIGHT | {"link": "#0b5fb0", "more": "#6aaede", "less": "#f0a868"}
_DARK = DARK | {"link": "#7cbcf5", "more": "#1d5f94", "less": "#8f4d12"}


def page(study: Study, *, shards: str | None = None) -> str:
    """The HTML of the page; `shards` as in `report`."""
    predicted = pictures(study, shards)  # first, as it may find damage
    many = len(study.domains) > 1
    parts = [_head(study)]
    for domain in study.domains:
        of = f" on {escape(domain)}" if many else ""
        parts += [_curve(study, domain, of), _scores(study, domain, of), _classes(study, domain, of)]
    parts.append(_claims(study))
    for domain in study.domains:
        parts.append(_training(study, domain, f" on {escape(domain)}" if many else ""))
    parts += [predicted, _runs(study)]
    light, dark = (";".join(f"--{name}:{colour}" for name, colour in palette.items()) for palette in (_LIGHT, _DARK))
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(study.index.study)}: mIoU against {escape(study.index.across or 'methods')}</title>\n"
        f"<style>\n:root{{{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n{css}</style>\n"
        f"</head>\n<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _head(study: Study) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in facts(study).items())
    found = "".join(f"<p>{escape(sentence)}</p>" for sentence in finding(study))
    return (
        f"<h1>{escape(study.index.study)}</h1>\n<p class='lead'>{escape(lead(study))}</p>\n"
        f"<div class='finding'>{found}</div>\n<dl>{rows}</dl>\n"
    )


def _curve(study: Study, domain: str, of: str) -> str:
    alt = f"Validation mIoU{of} after the last update, by {study.index.across or 'method'}. " + "; ".join(
        f"{cell.method} {study.place(cell.x)}: {_plain(cell.last)}" for cell in study.cells(domain) if cell.last
    )
    wide, narrow = (
        svg(label_efficiency(study, domain, width=width), alt, css_class=layout)
        for layout, width in (("wide", 720), ("narrow", 360))
    )
    return (
        f"<h2>Validation mIoU{of}, by {escape(study.index.across or 'method')}</h2>\n<figure>{wide}{narrow}<figcaption>"
        "Large marks: means after the last update. Small marks on their left: single runs. Bars: 95 % intervals of the mean by "
        "Student's t; a bar without a cap continues beyond the figure. Methods are side by side so that none hides another. "
        "The numbers are in the table below.</figcaption></figure>\n"
    )


def _scores(study: Study, domain: str, of: str) -> str:
    cells = study.cells(domain)
    taught = any(cell.teacher for cell in cells)
    spans = [abs(cell.gain.mean) + (cell.gain.half or 0) for cell in cells if cell.gain]
    # an interval that is far wider than all others is cut
    limit = math.ceil(max([1.0, *sorted(spans)[: len(spans) * 9 // 10 + 1][-1:]]))
    scale = f"−{limit} 0 +{limit}"
    compared = ["vs. baseline", "±", scale, "95 % interval"] if study.compares else []
    columns = ["method", "mIoU %", "±", *compared, "n", "best %", *["teacher %"] * taught]
    body = ""
    for x in study.xs:
        rows = "".join(_score_row(cell, limit if compared else None, taught) for cell in cells if cell.x == x)
        named = escape(study.place(x))
        group = f"<tr><th scope='rowgroup' colspan='{len(columns)}'>{named}</th></tr>" if named else ""
        body += f"<tbody>{group}{rows}</tbody>"
    paragraphs = "".join(f"<p class='note'>{escape(note)}</p>" for note in notes(study, domain, taught))
    return (
        f"<h2>Scores{of}{', and differences from the supervised baselines' if compared else ''}</h2>\n"
        + _table(f"Scores{of}", "Validation mIoU after the last update", columns, body, scale=scale)
        + paragraphs
    )


def _score_row(cell: Cell, limit: float | None, taught: bool) -> str:
    """`limit`: ends of the scale of differences; None if nothing is compared."""
    count = cell.last.n if cell.last else 0
    n = f"{count}" if count == cell.planned else f"{count} of {cell.planned}"
    teacher = f"<td>{_mean(cell.teacher)}</td>" if taught else ""
    return (
        f"<tr><th scope='row'>{escape(cell.method)}</th>"
        f"<td><b>{_mean(cell.last)}</b></td><td class='pm'>{_half(cell.last)}</td>"
        f"{'' if limit is None else _compared(cell, limit)}<td>{n}</td><td>{_mean(cell.best)}</td>{teacher}</tr>"
    )


def _compared(cell: Cell, limit: float) -> str:
    sure = " class='sure'" if cell.gain and cell.gain.verdict in ("above 0", "below 0") else ""
    verdict = cell.gain.verdict if cell.gain else "no pair of runs" if cell.baseline else "a baseline"
    other = cell.baseline if cell.gain and cell.baseline != "supervised" else None
    against = f" <small>vs. {escape(other)}</small>" if other else ""
    if cell.gain and cell.last and 1 < cell.gain.n < cell.last.n:
        against += f" <small>({cell.gain.n} pairs)</small>"
    gain = f"{cell.gain.mean:+z.2f}".replace("-", "−") if cell.gain else "–"
    forest = difference(cell.gain, limit) if cell.gain else ""
    return (
        f"<td{sure}>{gain}</td><td class='pm'>{_half(cell.gain)}</td><td class='forest'>{forest}</td>"
        f"<td class='words'><span{sure}>{verdict}</span>{against}</td>"
    )


def _classes(study: Study, domain: str, of: str) -> str:
    names = list(
        dict.fromkeys(
            name for run in study.runs for name in run.results["last"]["domains"].get(domain, {}).get("iou", {})
        )
    )
    classes = study.index.classes.get(domain, {})
    colours = dict(zip(classes.get("names", []), classes.get("colours", []), strict=False))
    tables = ""
    for number, x in enumerate(study.xs):
        cells = [cell for cell in study.cells(domain) if cell.x == x and cell.last]
        if not cells:
            continue
        rows = ""
        for name in names:
            square = swatch(colours[name]) if name in colours else ""
            values = "".join(_class_cell(*_class_means(study, cell, domain, name)) for cell in cells)
            rows += f"<tr><th scope='row'>{square}{escape(name)}</th>{values}</tr>"
        named = study.place(x) or "all runs"
        table = _table(f"IoU by class, {named}", f"IoU in percent, {named}", ["class", *(cell.method for cell in cells)],
                       f"<tbody>{rows}</tbody>", css="heat")  # fmt: skip
        tables += f"<details{' open' if number == 0 else ''}><summary>{escape(named)}</summary>{table}</details>"
    by = f" over runs of equal {escape(study.index.repeats)}" if study.index.repeats else ""
    return (
        f"<h2>IoU of every class{of}</h2>\n<p class='note'>Means over runs after the last update. Below each: the mean "
        f"difference from the method's baseline{by}. Shading: blue for more, orange for less, full at 10 points.</p>\n"
        + tables
    )


def _class_cell(value: Estimate | None, gain: Estimate | None) -> str:
    if value is None:
        return "<td>–</td>"
    if gain is None:
        return f"<td>{value.mean:.1f}</td>"
    much = round(min(1.0, abs(gain.mean) / 10) * 100)
    shift = f"{gain.mean:+z.1f}".replace("-", "−")
    return f"<td class='{'up' if gain.mean > 0 else 'down'}' style='--much:{much}%'>{value.mean:.1f}<small>{shift}</small></td>"


def _class_means(study: Study, cell: Cell, domain: str, name: str) -> tuple[Estimate | None, Estimate | None]:
    """IoU of a class over the runs of a method, and its difference from the baseline's over pairs of runs."""
    own = [iou for run in cell.runs if (iou := run.iou(domain, name)) is not None]
    pairs = ((run.iou(domain, name), other.iou(domain, name)) for run, other in study.pairs(cell.x, cell.method))
    return estimate(own), estimate([a - b for a, b in pairs if a is not None and b is not None])


def _claims(study: Study) -> str:
    found = claims(objective.get("kind", "") for run in study.runs for objective in run.recipe.get("objectives", []))
    if not found:
        return ""
    rows = "".join(
        f"<tr><td class='wrap'>{escape(claim.what)}</td><td>{escape(claim.figure)}</td>"
        f"<td class='words'><a href='{claim.url}'>{escape(claim.paper)}</a></td></tr>"
        for claim in found
    )
    return (
        "<h2>What the papers report</h2>\n<p>Other data, networks, budgets and evaluation than above, so not comparable with "
        "these scores. The papers give single figures without intervals.</p>\n"
        + _table(
            "What the papers report",
            "mIoU in percent, as printed",
            ["setting", "figure", "paper"],
            f"<tbody>{rows}</tbody>",
        )
    )


def _training(study: Study, domain: str, of: str) -> str:
    trained = {run.method for run in study.runs if run.curve(domain)}
    drawn = [method for method in study.methods if method in trained]
    if not drawn:
        return ""
    figures = ""
    for method in drawn:
        alt = f"Validation mIoU{of} of {method} during training; its last values are in the table of scores."
        figures += (
            f"<figure><h3>{escape(method)}</h3>{svg(training(study, method, domain), alt, css_class='panel')}</figure>"
        )
    across = f", labeled with the {escape(study.index.across)} at their end" if study.index.across else ""
    return (
        f"<h2>Validation during training{of}</h2>\n<p class='note'>mIoU in percent against updates. "
        f"Thin: runs. Thick: their means{across}. "
        f"Dotted: the mean of the method's baseline.</p>\n<div class='grid'>{figures}</div>\n"
    )


def _runs(study: Study) -> str:
    rows = "".join(f"<tr>{''.join(cells)}</tr>" for cells in listing(study))
    headings = ["run", "seed", "recipe", "last %", "best %", "hours", "commit"]
    gone = [f"{name} ({reason})" if reason else name for name, reason in study.missing.items()]
    missing = f"<p>Planned but missing: {escape(', '.join(gone))}.</p>" if gone else ""
    return (
        f"<h2>Every run</h2>\n{missing}<p>To repeat a run, with the same numbers on the same kind of "
        f"machine:</p>\n<pre>{escape(again(study))}</pre>\n"
        f"<details><summary>{len(study.runs)} runs</summary>"
        + _table("Every run", "Runs", headings, f"<tbody>{rows}</tbody>")
        + "</details>\n"
    )


def _table(label: str, caption: str, headings: Iterable[str], body: str, *, css: str = "", scale: str = "") -> str:
    """A table that scrolls sideways on a narrow screen. scale: the heading whose words are spread over its column."""
    words = ("95 % interval", "paper", "recipe", "commit", "±")
    columns = ""
    for heading in headings:
        kind = "words" if heading in words else "scale" if scale and heading == scale else ""
        spread = "".join(f"<span>{escape(word)}</span>" for word in heading.split())
        columns += f"<th scope='col' class='{kind}'>{spread if kind == 'scale' else escape(heading)}</th>"
    return (
        f"<div class='scroll' role='region' aria-label='{escape(label)}' tabindex='0'><table class='{css}'>"
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead>{body}</table></div>\n"
    )


def _mean(estimate: Estimate | None) -> str:
    return f"{estimate.mean:.2f}" if estimate else "–"


def _half(estimate: Estimate | None) -> str:
    return f"± {estimate.half:.2f}" if estimate and estimate.half is not None else ""


def _plain(estimate: Estimate | None) -> str:
    return f"{_mean(estimate)} {_half(estimate)}".strip()

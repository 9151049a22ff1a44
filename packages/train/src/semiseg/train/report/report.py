"""Write a study's report: one page that needs no network, the curve as a picture, and its numbers as tables."""

from pathlib import Path

from semiseg.data import SemisegError, atomic, unwritable
from semiseg.train.report.study import Study, read_study
from semiseg.train.report.tables import table_csv, table_markdown

LARGEST = 5_000_000  # bytes of a page that still opens at once and is easy to send


def report(folder: Path, out: Path, *, shards: str | None = None) -> list[Path]:
    """Write report.html, curve.png, table.csv and table.md into `out` from what `semiseg collect` left in `folder`.

    Each of several domains has its own curve, curve-DOMAIN.png. `folder` may also be that of a sweep.
    `shards`: where the data is, for images and ground truth beside the predictions.
    Returns the files. Raises SemisegError for a damaged or foreign folder, for a page of more than 5 MB, and, after
    writing the tables, without matplotlib.
    """
    study = read_study(folder)
    tables = {"table.csv": table_csv(study).encode(), "table.md": table_markdown(study).encode()}
    try:
        drawn = _page_and_curves(study, shards)
    except ImportError as error:
        _write(tables, out)
        raise SemisegError(
            f"{out}: only table.csv and table.md were written, not report.html and curve.png ({error}); "
            "pip install 'semiseg-train[plots]', then rerun the command"
        ) from None
    return _write({**drawn, **tables}, out)


def _page_and_curves(study: Study, shards: str | None) -> dict[str, bytes]:
    from semiseg.train.report.charts import label_efficiency
    from semiseg.train.report.page import page
    from semiseg.train.sweep.figures import png

    html = page(study, shards=shards).encode()
    if len(html) > LARGEST:
        raise SemisegError(
            f"{study.folder}: the page would have {len(html) / 1e6:.1f} MB, more than {LARGEST / 1e6:g}; "
            "collect again with fewer predictions (--predict N)"
        )
    curves = {
        f"curve-{domain}.png" if len(study.domains) > 1 else "curve.png": label_efficiency(study, domain, width=720)
        for domain in study.domains
    }
    return {"report.html": html, **{name: png(figure) for name, figure in curves.items()}}


def _write(contents: dict[str, bytes], out: Path) -> list[Path]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with atomic(out / name) as file:
                file.write(content)
    except OSError as error:
        raise unwritable(error, Path(error.filename or out)) from None
    return [out / name for name in contents]

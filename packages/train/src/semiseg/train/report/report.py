"""Write a study's report: one page that needs no network, the curve as a picture, and its numbers as tables."""

from pathlib import Path

from semiseg.data import SemisegError, atomic, unwritable
from semiseg.train.report.charts import label_efficiency
from semiseg.train.report.page import page
from semiseg.train.report.study import read_study
from semiseg.train.report.tables import table_csv, table_markdown

LARGEST = 5_000_000  # bytes of a page that still opens at once and can be sent around


def report(folder: Path, out: Path, *, shards: str | None = None) -> list[Path]:
    """Write report.html, curve.png, table.csv and table.md into `out` from what `semiseg collect` left in `folder`.

    Each of several domains has a curve of its own, curve-DOMAIN.png. `folder` may also be a sweep's own.
    `shards`: where the data lie, for images and truth beside the predictions.
    Returns the files. Raises SemisegError for a damaged or foreign folder, and for a page of more than 5 MB.
    """
    study = read_study(folder)
    html = page(study, shards=shards)
    if len(html.encode()) > LARGEST:
        raise SemisegError(
            f"the page would have {len(html.encode()) / 1e6:.1f} MB, more than {LARGEST / 1e6:g}; collect fewer predictions"
        )
    curves = {
        f"curve-{domain}.png" if len(study.domains) > 1 else "curve.png": label_efficiency(
            study, domain, width=720
        ).png()
        for domain in study.domains
    }
    tables = {"table.csv": table_csv(study).encode(), "table.md": table_markdown(study).encode()}
    contents = {"report.html": html.encode(), **curves, **tables}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with atomic(out / name) as file:
                file.write(content)
    except OSError as error:
        raise unwritable(error, Path(error.filename or out)) from None
    return [out / name for name in contents]

"""Reports: one HTML page that holds everything known of some studies, and needs nothing else to be read.

- `page`: reads a database, writes the page.
- `contents`: what a page knows of one study.
- `tables`: the question, the comparison, the widths, every trial; as plain values.
- `figures`: history, score against cost, kept widths; with plotly.
- `templates`: the page's HTML, its style and its one script.
"""

from prunesearch.report.page import write_report

__all__ = ["write_report"]

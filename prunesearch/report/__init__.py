"""Reports: one HTML page that holds everything known of some studies, and needs nothing else to be read.

- `page`: reads a database, writes the page.
- `contents`: what a page knows of one study; rounds of a search under a latency budget are one study.
- `tiles`, `tables`, `layers`, `trials`, `loading`: what its parts say, as plain values.
- `figures`: which figures there are; `scores`, `winners`: what is in them, of `series`; `plot`: axes and paths of one.
- `templates`: the page's HTML, its figures as SVG, its style and its one script.
"""

from prunesearch.report.page import write_report

__all__ = ["write_report"]

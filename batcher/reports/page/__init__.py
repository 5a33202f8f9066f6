"""The page that `report` makes: one HTML file to look at and listen to, without a request to anywhere.

In reading order: `page` writes it as a stream, `facts` finds what its upper part tells, `charts` draws. `page.html`,
`page.css` and `page.js` beside them are put into each page as they are.
"""

from batcher.reports.page.page import Choices, write_page

__all__ = ["Choices", "write_page"]

"""The status page: how the service and its workers are, live, and the story of each piece of work and of each worker.

It is made on the server, and whole without JavaScript; with it, a stream of events brings the same part of the page
anew. Everything that others have chosen is text in it: what a browser or a reader's eye would obey is replaced
(`shown`), the rest is escaped, and the policy in each answer lets the browser load nothing but our own two files.
Whoever may ask is the business of `door`.
"""

from liveness.page.routes import Page

__all__ = ["Page"]

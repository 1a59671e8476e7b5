"""A help desk: a knowledge base, tickets, the team, bookmarks and settings."""

from sites.contract import Site
from sites.helpdesk.content import initial_state, make_content
from sites.helpdesk.routes import ROUTES
from sites.helpdesk.tasks import KINDS

SITE = Site(
    name="helpdesk",
    title="Plugpoint Desk",
    description="The help desk of an office: read articles about devices, search them, vote and bookmark, work on "
    "tickets (filter, comment, status, priority, assignee), open new ones, look up the team and change settings.",
    make_content=make_content,
    initial_state=initial_state,
    kinds=KINDS,
    routes=ROUTES,
)

"""A forum: boards, threads, replies, votes, members and settings."""

from sites.contract import Site
from sites.forum.content import initial_state, make_content
from sites.forum.routes import ROUTES
from sites.forum.tasks import KINDS

SITE = Site(
    name="forum",
    title="Common Room",
    description="A discussion forum: boards with threads, replies and votes, member profiles, search, following "
    "threads, writing replies and new threads, and settings.",
    make_content=make_content,
    initial_state=initial_state,
    kinds=KINDS,
    routes=ROUTES,
)

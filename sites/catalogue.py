"""The practice sites by name."""

from sites.contract import Site
from sites.forum import SITE as FORUM
from sites.helpdesk import SITE as HELPDESK
from sites.shop import SITE as SHOP

SITES: dict[str, Site] = {site.name: site for site in (SHOP, FORUM, HELPDESK)}

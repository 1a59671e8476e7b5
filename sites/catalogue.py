"""The practice sites there are."""

from sites.contract import Site
from sites.helpdesk import SITE as HELPDESK
from sites.shop import SITE as SHOP

SITES: dict[str, Site] = {site.name: site for site in (SHOP, HELPDESK)}

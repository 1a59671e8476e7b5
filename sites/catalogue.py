"""The practice sites there are."""

from sites.contract import Site
from sites.shop import SITE as SHOP

SITES: dict[str, Site] = {site.name: site for site in (SHOP,)}

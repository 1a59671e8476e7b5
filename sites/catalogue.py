"""The practice sites there are."""

from sites.contract import Site

SITES: dict[str, Site] = {site.name: site for site in ()}

"""A shop: categories, search, product pages, cart, orders, reviews and settings."""

from sites.contract import Site
from sites.shop.content import initial_state, make_content
from sites.shop.routes import ROUTES
from sites.shop.tasks import KINDS

SITE = Site(
    name="shop",
    title="Copper & Clay",
    description="An online shop for things for home and travel: browse categories, search, sort and filter, read "
    "product details, fill the cart, check out, write reviews and change settings.",
    make_content=make_content,
    initial_state=initial_state,
    kinds=KINDS,
    routes=ROUTES,
)

"""What the shop's gold tasks are put together from: ways to a product, the state wanted."""

import random
from collections.abc import Callable

from sites.contract import GoldTask, Move, State
from sites.moves import Moves, click, enter
from sites.shop.content import Product, Shop, initial_state

Draft = Callable[[Shop, random.Random, int], GoldTask]
"""(shop, rng, number) -> a task without id and kind. The number varies it: 0 is near the home page, 1 further away."""

SEARCH = "Search"


def wanted(shop: Shop, **changes: object) -> State:
    """The first state with some of its keys replaced."""
    return {**initial_state(shop), **changes}


def pick(shop: Shop, rng: random.Random, number: int, *others: Product) -> Product:
    """A product that isn't in the cart nor one of the others: a featured one for task 0, else one that isn't."""
    taken = {key for key, _ in shop.basket} | {product.slug for product in others}
    featured = {product.slug for product in shop.featured}
    fitting = [p for p in shop.products if p.slug not in taken and (p.slug in featured) == (number == 0)]
    return rng.choice(fitting)


def spot(shop: Shop, product: Product) -> Moves:
    """From the home page to a page with the product's link and price; no move if that is the home page."""
    return () if product in shop.featured else look_up(product)


def look_up(product: Product) -> Moves:
    """From any page to a page with the product's link and price."""
    return (enter(SEARCH, product.name, f"I search for the {product.name}."),)


def open_page(product: Product) -> Move:
    """Follow the product's link."""
    return click(product.name, f"I open the page of the {product.name}.")


def visit(shop: Shop, product: Product) -> Moves:
    """From the home page to the product's page."""
    return (*spot(shop, product), open_page(product))


def cart_link(num_items: int) -> str:
    """The cart's link as the menu shows it."""
    return f"Cart ({num_items})"


def open_cart(shop: Shop) -> Move:
    """Follow the cart's link as it is at the start."""
    return click(cart_link(sum(quantity for _, quantity in shop.basket)), "I open the cart.")

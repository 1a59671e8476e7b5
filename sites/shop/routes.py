"""The shop's pages and what their forms do to the state."""

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote_plus, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sites.contract import State
from sites.pages import form, number, redirect, render, world_of
from sites.shop.content import CURRENCIES, DELIVERIES, PAGE_SIZE, Product, Shop, money, slug

SORTS = {
    "": "Featured",
    "price": "Price: low to high",
    "-price": "Price: high to low",
    "rating": "Best rated",
}
"""Value of the sort parameter -> what the menu says."""

MAX_PER_PRODUCT = 9
INFO_PAGES = {"returns": "Returns", "contact": "Contact", "about": "About us", "care": "Care guide"}


def _shop(request: Request) -> Shop:
    return world_of(request).content


def _state(request: Request) -> State:
    return world_of(request).state


def _page(request: Request, template: str, **context: Any) -> Response:
    shop, state = _shop(request), _state(request)
    return render(
        request,
        f"shop/{template}",
        price=lambda cents: money(cents, state["settings"]["currency"]),
        slug=slug,
        num_in_cart=sum(state["cart"].values()),
        lines=[(shop.by_slug[key], quantity) for key, quantity in state["cart"].items()],
        info_pages=INFO_PAGES,
        **context,
    )


def _product(request: Request, key: str) -> Product:
    product = _shop(request).by_slug.get(key)
    if product is None:
        raise HTTPException(404)
    return product


def _named(product: Product, quantity: int) -> str:
    return product.name if quantity == 1 else f"{quantity} x {product.name}"


async def home(request: Request) -> Response:
    """The start page, with the featured products."""
    return _page(request, "home.html")


async def category(request: Request) -> Response:
    """A category's products: sorted, up to a price, six to a page."""
    shop, params = _shop(request), request.query_params
    name = next((name for name in shop.categories if slug(name) == request.path_params["category"]), None)
    if name is None:
        raise HTTPException(404)
    sort = params.get("sort", "") if params.get("sort", "") in SORTS else ""
    max_price = _amount(params.get("max_price", ""))
    products = [product for product in shop.of_category(name) if _within(product, max_price)]
    num_pages = max(1, math.ceil(len(products) / PAGE_SIZE))
    page = number(params.get("page"), 1, 1, num_pages)
    chosen = {"sort": sort, "max_price": max_price, "page": str(page) if page > 1 else ""}
    given = {key: value for key, value in chosen.items() if value}
    if given != {key: value for key, value in params.items() if value}:
        return redirect(request, _address(request.url.path, given))  # "$30" and "30.0" are the same place
    return _page(
        request,
        "category.html",
        category=name,
        products=_sorted(products, sort)[(page - 1) * PAGE_SIZE : page * PAGE_SIZE],
        num_products=len(products),
        page=page,
        num_pages=num_pages,
        link_to=lambda page: _address(request.url.path, given | {"page": str(page) if page > 1 else ""}),
        sorts=SORTS,
        sort=sort,
        max_price=max_price,
    )


def _amount(text: str) -> str:
    """A price limit as it stands in addresses; empty if the text holds none."""
    try:
        amount = float(text.strip().lstrip("$€£"))
    except ValueError:
        return ""
    return f"{amount:.2f}".removesuffix(".00") if 0 < amount < 1e6 else ""


def _within(product: Product, max_price: str) -> bool:
    return not max_price or product.price_cents <= round(float(max_price) * 100)


def _address(path: str, params: dict[str, str]) -> str:
    given = {key: value for key, value in params.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def _sorted(products: Sequence[Product], sort: str) -> list[Product]:
    keys = {"price": lambda p: p.price_cents, "-price": lambda p: -p.price_cents, "rating": lambda p: -p.rating}
    return sorted(products, key=keys[sort]) if sort else list(products)


async def search(request: Request) -> Response:
    """Products whose name holds the words searched for."""
    words = request.query_params.get("q", "")
    plain = " ".join(words.casefold().split())
    if words != plain:
        return redirect(request, f"/search?q={quote_plus(plain)}")
    found = _shop(request).search(plain)
    return _page(request, "search.html", found=found[: 2 * PAGE_SIZE], num_found=len(found))


async def product(request: Request) -> Response:
    """Everything about one product; a posted form is a review of it."""
    shown = _product(request, request.path_params["product"])
    written = await form(request) if request.method == "POST" else {}
    error = ""
    if request.method == "POST":
        stars = number(written.get("stars"), 0, 0, 5)
        if stars:
            review = {"stars": stars, "text": written.get("text", "")}
            _state(request)["reviews"].setdefault(shown.slug, []).append(review)
            return redirect(request, f"/product/{shown.slug}", f"Your {stars}-star review of {shown.name} is posted.")
        error = "Choose a number of stars first."
    own = _state(request)["reviews"].get(shown.slug, [])
    return _page(request, "product.html", product=shown, own_reviews=own, error=error, written=written)


async def cart(request: Request) -> Response:
    """What lies in the cart, with its total."""
    total = sum(_shop(request).by_slug[key].price_cents * quantity for key, quantity in _state(request)["cart"].items())
    return _page(request, "cart.html", total_cents=total)


async def cart_add(request: Request) -> Response:
    """Put a product into the cart."""
    posted = await form(request)
    added = _product(request, posted.get("product", ""))
    items, quantity = _state(request)["cart"], number(posted.get("quantity"), 1, 1, MAX_PER_PRODUCT)
    if items.get(added.slug, 0) + quantity > MAX_PER_PRODUCT:
        return redirect(request, "/cart", f"At most {MAX_PER_PRODUCT} of each product can be ordered.")
    items[added.slug] = items.get(added.slug, 0) + quantity
    return redirect(request, "/cart", f"Added {_named(added, quantity)} to your cart.")


async def cart_update(request: Request) -> Response:
    """Change a product's quantity; one that isn't from 1 to 9 changes nothing."""
    posted = await form(request)
    changed = _product(request, posted.get("product", ""))
    quantity = number(posted.get("quantity"), 0, 0, MAX_PER_PRODUCT + 1)
    if changed.slug not in _state(request)["cart"] or not 1 <= quantity <= MAX_PER_PRODUCT:
        return redirect(request, "/cart", f"The quantity must be a number from 1 to {MAX_PER_PRODUCT}.")
    _state(request)["cart"][changed.slug] = quantity
    return redirect(request, "/cart", f"Quantity of {changed.name} is now {quantity}.")


async def cart_remove(request: Request) -> Response:
    """Take a product out of the cart."""
    removed = _product(request, (await form(request)).get("product", ""))
    _state(request)["cart"].pop(removed.slug, None)
    return redirect(request, "/cart", f"Removed {removed.name} from your cart.")


async def cart_clear(request: Request) -> Response:
    """Ask before the cart is emptied (the dialog does where scripts run); empty it when the answer is posted."""
    if request.method == "GET":
        return _page(request, "clear.html")
    _state(request)["cart"].clear()
    return redirect(request, "/cart", "All items were removed from your cart.")


async def checkout(request: Request) -> Response:
    """The order form; posted without a gap it makes an order of what lies in the cart."""
    shop, state = _shop(request), _state(request)
    if not state["cart"]:
        return redirect(request, "/cart", "There is nothing to order: your cart is empty.")
    fields = {"name": shop.customer, "email": shop.email, "address": ""}
    errors: dict[str, str] = {}
    if request.method == "POST":
        posted = await form(request)
        fields = {key: posted.get(key, "") for key in fields}
        errors = _gaps(fields)
        if not errors:
            state["orders"].append({"items": dict(state["cart"]), **fields})
            state["cart"].clear()
            return redirect(request, f"/order/{len(state['orders'])}", "Thank you, your order is placed.")
    return _page(request, "checkout.html", fields=fields, errors=errors)


def _gaps(fields: dict[str, str]) -> dict[str, str]:
    errors = {}
    if not fields["name"]:
        errors["name"] = "Enter a name."
    if "@" not in fields["email"].strip("@"):
        errors["email"] = "Enter an e-mail address such as ada@example.com."
    if len(fields["address"]) < 5:
        errors["address"] = "Enter an address."
    return errors


async def order(request: Request) -> Response:
    """The confirmation of an order."""
    orders, shop = _state(request)["orders"], _shop(request)
    chosen = request.path_params["number"]
    if not 1 <= chosen <= len(orders):
        raise HTTPException(404)
    placed = orders[chosen - 1]
    bought = [(shop.by_slug[key], quantity) for key, quantity in placed["items"].items()]
    return _page(request, "order.html", number=chosen, placed=placed, bought=bought)


async def settings(request: Request) -> Response:
    """The customer's settings; posting the form saves all of them."""
    if request.method == "POST":
        posted, saved = await form(request), _state(request)["settings"]
        if posted.get("currency") in CURRENCIES:
            saved["currency"] = posted["currency"]
        if posted.get("delivery") in DELIVERIES:
            saved["delivery"] = posted["delivery"]
        saved["newsletter"] = "newsletter" in posted
        newsletter = "on" if saved["newsletter"] else "off"
        summary = f"currency {saved['currency']}, delivery {saved['delivery']}, newsletter {newsletter}"
        return redirect(request, "/settings", f"Settings saved: {summary}.")
    return _page(request, "settings.html", currencies=tuple(CURRENCIES), deliveries=DELIVERIES)


async def info(request: Request) -> Response:
    """A page of the help menu."""
    page = request.path_params["page"]
    if page not in INFO_PAGES:
        raise HTTPException(404)
    return _page(request, "info.html", page=page, heading=INFO_PAGES[page])


ROUTES: tuple[BaseRoute, ...] = (
    Route("/", home),
    Route("/category/{category}", category),
    Route("/search", search),
    Route("/product/{product}", product, methods=["GET", "POST"]),
    Route("/cart", cart),
    Route("/cart/add", cart_add, methods=["POST"]),
    Route("/cart/update", cart_update, methods=["POST"]),
    Route("/cart/remove", cart_remove, methods=["POST"]),
    Route("/cart/clear", cart_clear, methods=["GET", "POST"]),
    Route("/checkout", checkout, methods=["GET", "POST"]),
    Route("/order/{number:int}", order),
    Route("/settings", settings, methods=["GET", "POST"]),
    Route("/help/{page}", info),
)

"""The shop's pages do what their forms say, and refuse what they should."""

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from sites.__main__ import app
from sites.server import PracticeServer, Visit
from sites.shop.content import Product, Shop, slug
from tests.fakes import Reader


@pytest.fixture(scope="module")
def server() -> Iterator[PracticeServer]:
    with PracticeServer() as server:
        yield server


@pytest.fixture
def visit(server: PracticeServer) -> Visit:
    return server.open("shop", "train-0")


@pytest.fixture
def reader(visit: Visit) -> Iterator[Reader]:
    with Reader(visit) as reader:
        yield reader


@pytest.fixture
def shop(visit: Visit) -> Shop:
    return visit.world.content


def shown_text(reader: Reader) -> str:
    return next(node for node in reader.page.walk() if node.tag == "main").text


def names_on(reader: Reader) -> list[str]:
    return [reader.name(node) for node in reader.elements() if node.attrs.get("href", "").startswith("/product/")]


def long_category(shop: Shop) -> tuple[str, tuple[Product, ...]]:
    return max(((name, shop.of_category(name)) for name in shop.categories), key=lambda pair: len(pair[1]))


def test_a_long_category_goes_on_on_a_second_page_in_the_same_order(reader: Reader, shop: Shop) -> None:
    name, products = long_category(shop)
    reader.goto(f"/category/{slug(name)}?sort=price")
    first = names_on(reader)
    reader.click(reader.find("Next page"))
    by_price = [product.name for product in sorted(products, key=lambda product: product.price_cents)]
    assert len(first) == 6
    assert first + names_on(reader) == by_price
    assert reader.url == f"/category/{slug(name)}?sort=price&page=2"


@pytest.mark.parametrize("typed", ["40", "$40", " 40.00 "])
def test_a_price_limit_is_one_place_however_it_is_typed(reader: Reader, shop: Shop, visit: Visit, typed: str) -> None:
    name, products = long_category(shop)
    reader.goto(f"/category/{slug(name)}")
    reader.type(reader.find("Max price"), typed)
    assert visit.world.read()["location"] == f"/category/{slug(name)}?max_price=40"
    cheap = [product.name for product in products if product.price_cents <= 4000]
    assert names_on(reader) == cheap[:6]
    assert f"{len(cheap)} product" in shown_text(reader)


def test_a_senseless_price_limit_is_ignored(reader: Reader, shop: Shop) -> None:
    reader.goto(f"/category/{slug(shop.categories[0])}?max_price=cheap&sort=sideways&page=99")
    assert reader.url.startswith(f"/category/{slug(shop.categories[0])}")
    assert names_on(reader)


def test_searching_ignores_case_and_finds_a_full_name_once(reader: Reader, shop: Shop) -> None:
    product = shop.products[-1]
    reader.type(reader.find("Search"), product.name.upper())
    assert names_on(reader) == [product.name]
    assert f'1 product found for "{product.name.casefold()}"' in shown_text(reader)


def test_a_search_without_a_hit_says_so(reader: Reader) -> None:
    reader.type(reader.find("Search"), "<script>alert(1)</script>")
    assert "0 products found" in shown_text(reader)
    assert not [node for node in reader.page.walk() if node.tag == "script" and "src" not in node.attrs]


def test_a_product_page_shows_every_fact(reader: Reader, shop: Shop) -> None:
    for product in shop.products:
        reader.goto(f"/product/{product.slug}")
        text = shown_text(reader)
        for fact in (product.price, product.colour, product.material, f"{product.rating} of 5", str(product.stock)):
            assert fact in text
        assert all(review.author in text for review in product.reviews)


def test_adding_shows_the_cart_with_a_message_that_is_gone_next_time(reader: Reader, shop: Shop) -> None:
    product = next(product for product in shop.products if product.slug not in dict(shop.basket))
    reader.goto(f"/product/{product.slug}")
    reader.select(reader.find("Quantity"), "3")
    reader.click(reader.find("Add to cart"))
    message = f"Added 3 x {product.name} to your cart."
    assert message in shown_text(reader)
    reader.goto("/cart")
    assert message not in shown_text(reader)
    assert product.name in shown_text(reader)


@pytest.mark.parametrize("quantity", ["0", "10", "-1", "two", ""])
def test_a_senseless_quantity_changes_nothing(reader: Reader, shop: Shop, visit: Visit, quantity: str) -> None:
    product = shop.by_slug[shop.basket[0][0]]
    before = visit.world.read()["cart"]
    reader.goto("/cart")
    reader.type(reader.find(f"Quantity of {product.name}"), quantity)
    assert "must be a number from 1 to 9" in shown_text(reader)
    assert visit.world.read()["cart"] == before


def test_checkout_names_each_gap_and_keeps_what_was_typed(reader: Reader, visit: Visit) -> None:
    reader.goto("/checkout")
    reader.type(reader.find("Name"), "")
    reader.type(reader.find("E-mail"), "nowhere")
    reader.type(reader.find("Address"), "5 A")
    reader.click(reader.find("Place order"))
    text = shown_text(reader)
    assert all(gap in text for gap in ("Enter a name.", "Enter an e-mail address", "Enter an address."))
    assert reader.find("E-mail").attrs["value"] == "nowhere"
    assert visit.world.read()["orders"] == []


def test_an_order_empties_the_cart_and_is_confirmed(reader: Reader, shop: Shop, visit: Visit) -> None:
    reader.goto("/checkout")
    reader.type(reader.find("Address"), "5 Amber Street")
    reader.click(reader.find("Place order"))
    assert reader.url == "/order/1"
    assert "5 Amber Street" in shown_text(reader)
    assert all(shop.by_slug[key].name in shown_text(reader) for key, _ in shop.basket)
    assert visit.world.read()["cart"] == {}
    reader.goto("/checkout")
    assert "your cart is empty" in shown_text(reader)


def test_prices_follow_the_currency_setting(reader: Reader, shop: Shop) -> None:
    reader.goto("/settings")
    reader.select(reader.find("Currency"), "EUR")
    reader.click(reader.find("Save"))
    assert "currency EUR" in shown_text(reader)
    reader.goto("/")
    assert "€" in shown_text(reader) and "$" not in shown_text(reader)


def test_a_review_needs_stars(reader: Reader, shop: Shop, visit: Visit) -> None:
    reader.goto(f"/product/{shop.products[0].slug}")
    reader.type(reader.find("Comment"), "Good")
    reader.click(reader.find("Post review"))
    assert "Choose a number of stars first." in shown_text(reader)
    assert visit.world.read()["reviews"] == {}
    reader.select(reader.find("Stars"), "4")
    reader.click(reader.find("Post review"))
    assert "You: 4 stars. Good" in shown_text(reader)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--site", "bazaar"], "expected one of"), (["--world", "train"], "expected train-<n>")],
)
def test_serving_something_that_is_not_there_is_one_line_and_exit_code_2(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, ["serve", "--port", "0", *arguments])
    assert result.exit_code == 2
    assert complaint in result.output


def test_serving_on_a_taken_port_is_one_line_and_exit_code_2(server: PracticeServer) -> None:
    result = CliRunner().invoke(app, ["serve", "--port", str(server.port)])
    assert result.exit_code == 2
    assert str(server.port) in result.output

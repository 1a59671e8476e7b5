"""A generated shop: its products, prices and reviews, and the state an episode starts with."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sites.contract import Split, State, in_split
from sites.pictures import COLOURS, product_picture

PAGE_SIZE = 6
NUM_FEATURED = 6


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CATEGORIES: dict[str, dict[str, str]] = {
    "Kitchen": {
        "Kettle": "kettle",
        "Mug": "mug",
        "Teapot": "kettle",
        "Jug": "mug",
        "Carafe": "bottle",
        "Bread Box": "box",
    },
    "Lighting": {"Lamp": "lamp", "Lantern": "lamp", "Floor Lamp": "lamp", "Nightlight": "lamp", "Spotlight": "lamp"},
    "Furniture": {"Chair": "chair", "Stool": "chair", "Armchair": "chair", "Cabinet": "box", "Bench": "chair"},
    "Bags": {"Backpack": "bag", "Satchel": "bag", "Tote": "bag", "Suitcase": "box", "Handbag": "bag"},
    "Office": {"Notebook": "book", "Planner": "book", "Clock": "clock", "Folder": "book", "Organizer": "box"},
    "Bedroom": {"Blanket": "blanket", "Quilt": "blanket", "Rug": "blanket", "Alarm Clock": "clock", "Throw": "blanket"},
    "Outdoor": {"Flask": "bottle", "Bottle": "bottle", "Cooler": "box", "Hammock": "blanket", "Picnic Mat": "blanket"},
}
"""Category -> product noun -> shape of its picture."""

MATERIALS = {
    "Kitchen": ("steel", "glass", "ceramic", "copper"),
    "Lighting": ("brass", "steel", "paper", "glass"),
    "Furniture": ("oak", "pine", "walnut", "bamboo"),
    "Bags": ("leather", "canvas", "nylon", "cotton"),
    "Office": ("leather", "cork", "steel", "linen"),
    "Bedroom": ("wool", "cotton", "linen", "silk"),
    "Outdoor": ("steel", "nylon", "canvas", "rubber"),
}

ADJECTIVES = _words(
    "Alpine Amber Arctic Autumn Breezy Bristol Calm Canyon Cedar Classic Clever Coastal Cosmic Cozy Crystal Daily "
    "Dapper Delta Desert Eager Ember Fable Falcon Festive Forest Garden Gentle Glacier Golden Grand Harbor Hazel "
    "Heritage Highland Honest Humble Island Ivory Jolly Lively Lucky Lunar Magnolia Maple Marble Meadow Mellow "
    "Midnight Misty Modern Monarch Nimble Noble Nordic Ocean Olive Opal Orchid Pacific Pebble Pepper Pioneer Prairie "
    "Quiet Rapid River Royal Rustic Saffron Sierra Silent Simple Solar Spruce Sterling Summit Sunny Swift Tidal "
    "Timber Tranquil Urban Valley Velvet Village Vivid Willow Winter Zephyr Zesty"
)

FIRST_NAMES = _words(
    "Ada Ben Carla Dario Elif Fiona Gus Hana Ivan Jana Karim Lena Milo Nora Omar Petra Quinn Rosa Sam Tara Uma Vera"
)
LAST_NAMES = _words(
    "Adler Brook Costa Dorn Eklund Fox Gray Hale Iwata Jensen Klein Lund Moss Novak Okoye Park Reyes Stone"
)
STREETS = ("Street", "Lane", "Road", "Avenue", "Square")

PRAISE = (
    "Looks even better at home.",
    "Does what it should.",
    "A present that was liked.",
    "Sturdy and well made.",
    "Smaller than I thought, but fine.",
    "Arrived on time.",
    "I would buy it again.",
    "The finish could be better.",
)
USES = ("for every day", "for small homes", "for busy weeks", "for guests", "for quiet evenings", "for long trips")

CURRENCIES = {"USD": ("$", 100), "EUR": ("€", 92), "GBP": ("£", 79)}
"""Code -> sign, and what a hundred US cents are worth in its hundredths."""
DELIVERIES = ("Standard", "Express", "Pick-up point")


@dataclass(frozen=True, slots=True)
class Review:
    """What a customer wrote about a product."""

    author: str
    stars: int
    text: str


@dataclass(frozen=True, slots=True)
class Product:
    """One product; everything about it stands on its page."""

    name: str
    category: str
    price_cents: int
    colour: str
    material: str
    stock: int
    delivery_days: int
    rating: float
    """Average of all customers' stars, one decimal."""
    description: str
    picture: str
    reviews: tuple[Review, ...]

    @property
    def slug(self) -> str:
        """The product's name in its address."""
        return slug(self.name)

    @property
    def price(self) -> str:
        """The price in US dollars, as an episode's first pages show it."""
        return money(self.price_cents, "USD")


@dataclass(frozen=True)
class Shop:
    """One world of the shop."""

    products: tuple[Product, ...]
    featured: tuple[Product, ...]
    """Those on the home page."""
    customer: str
    """Name of the person who is signed in."""
    email: str
    streets: tuple[str, ...]
    """Addresses to send things to, for tasks; no page shows them."""
    basket: tuple[tuple[str, int], ...]
    """Slug and quantity of what lies in the cart at the start."""

    @cached_property
    def by_slug(self) -> dict[str, Product]:
        """Products by the name in their address."""
        return {product.slug: product for product in self.products}

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Category names in the order of the menu."""
        return tuple(dict.fromkeys(product.category for product in self.products))

    def of_category(self, category: str) -> tuple[Product, ...]:
        """Products of a category in the shop's own order."""
        return tuple(product for product in self.products if product.category == category)

    def search(self, words: str) -> tuple[Product, ...]:
        """Products in whose name every word begins some word; none for an empty search."""
        wanted = words.casefold().split()
        return tuple(product for product in self.products if wanted and _holds(product.name, wanted))

    def names(self) -> set[str]:
        """Proper names made up for this world."""
        authors = {review.author for product in self.products for review in product.reviews}
        return {product.name for product in self.products} | authors | {self.customer, *self.streets}


def slug(name: str) -> str:
    """A name as it stands in an address."""
    return name.casefold().replace(" ", "-")


def money(cents: int, currency: str) -> str:
    """A price in US cents, written in a currency."""
    sign, rate = CURRENCIES[currency]
    return f"{sign}{cents * rate / 10_000:.2f}"


def _holds(name: str, wanted: Sequence[str]) -> bool:
    words = name.casefold().split()
    return all(any(word.startswith(prefix) for word in words) for prefix in wanted)


def make_content(rng: random.Random, split: Split) -> Shop:
    """The shop of one world."""
    categories = rng.sample(list(CATEGORIES), rng.choice((4, 5)))
    sizes = [rng.randint(5, 8) for _ in categories]
    adjectives = rng.sample(ADJECTIVES, len(ADJECTIVES))
    prices = iter(rng.sample([100 * whole + part for whole in range(4, 90) for part in (0, 50, 90, 99)], sum(sizes)))
    products = tuple(
        _product(category, adjectives, next(prices), rng, split)
        for category, size in zip(categories, sizes, strict=True)
        for _ in range(size)
    )
    featured = tuple(rng.sample(products, NUM_FEATURED))
    customer = _names(FIRST_NAMES, LAST_NAMES, split, rng, 1)[0]
    return Shop(
        products=products,
        featured=featured,
        customer=customer,
        email=f"{customer.split()[0].casefold()}@example.com",
        streets=tuple(_names(ADJECTIVES, STREETS, split, rng, 2)),
        basket=tuple((product.slug, rng.randint(1, 3)) for product in rng.sample(products, 2)),
    )


def _product(category: str, adjectives: list[str], price: int, rng: random.Random, split: Split) -> Product:
    noun = rng.choice(list(CATEGORIES[category]))
    # Adjectives don't repeat within a world, so a search for a full name finds one product.
    adjective = next(word for word in adjectives if in_split(f"{word} {noun}", split))
    adjectives.remove(adjective)
    colour, material = rng.choice(list(COLOURS)), rng.choice(MATERIALS[category])
    texts = rng.sample(PRAISE, rng.randint(1, 2))
    authors = _names(FIRST_NAMES, LAST_NAMES, split, rng, len(texts))
    stars = rng.choices(range(2, 6), k=len(texts))
    return Product(
        name=f"{adjective} {noun}",
        category=category,
        price_cents=price,
        colour=colour,
        material=material,
        stock=rng.randint(9, 40),
        delivery_days=rng.randint(1, 9),
        rating=rng.randint(25, 50) / 10,
        description=f"A {colour} {noun.casefold()} made of {material}, {rng.choice(USES)}.",
        picture=product_picture(CATEGORIES[category][noun], colour),
        reviews=tuple(Review(*review) for review in zip(authors, stars, texts, strict=True)),
    )


def _names(firsts: Sequence[str], lasts: Sequence[str], split: Split, rng: random.Random, count: int) -> list[str]:
    """Different two-word names of a split."""
    names = [name for first in firsts for last in lasts if in_split(name := f"{first} {last}", split)]
    return rng.sample(names, count)


def initial_state(shop: Shop) -> State:
    """The state of a fresh episode."""
    return {
        "cart": dict(shop.basket),
        "settings": {"currency": "USD", "delivery": "Standard", "newsletter": False},
        "reviews": {},
        "orders": [],
    }

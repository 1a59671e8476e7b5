"""Gold tasks about finding things: their goal is an answer or a place, and the state stays as it was."""

import random
from dataclasses import replace

from sites.contract import GoldTask
from sites.moves import Moves, answer, choose, click, done, draft, enter, other_counts, said, said_of_two
from sites.pictures import COLOURS
from sites.shop.content import MATERIALS, Product, Shop, slug
from sites.shop.drafts import SEARCH, pick, spot, visit, wanted
from sites.shop.routes import INFO_PAGES, SORTS


def _others(rng: random.Random, right: str, among: list[str] | tuple[str, ...], count: int = 3) -> list[str]:
    """Wrong answers that stand near the right one."""
    return rng.sample([text for text in dict.fromkeys(among) if text != right], count)


def find_price(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """What does a product cost?"""
    product = pick(shop, rng, number)
    name, way = product.name, spot(shop, product)
    wrong = _others(rng, product.price, [other.price for other in shop.featured])
    instruction = rng.choice(
        (
            f"How much does the {name} cost?",
            f"What is the price of the {name}?",
            f"Find the price of the {name}.",
            f"Tell me what the {name} costs.",
        )
    )
    return draft(
        instruction,
        wanted(shop),
        (*way, answer(product.price, f"The {name} costs {product.price}.")),
        [(*way, answer(price, f"The {name} costs {price}.")) for price in wrong[:2]],
        answers=[product.price],
        distractors=[other.price for other in shop.products if other is not product],
    )


def find_detail(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Which colour, material, stock, delivery time or rating has a product?"""
    product = pick(shop, rng, number)
    detail = rng.choice(("colour", "material", "delivery", "stock", "rating"))
    question, right, accepted, wrong, distractors = _detail(product, detail)
    return draft(
        rng.choice(question),
        wanted(shop),
        (*visit(shop, product), answer(right, f"The page of the {product.name} says {detail}: {right}.")),
        [
            (*visit(shop, product), answer(text, f"The page of the {product.name} says {detail}: {text}."))
            for text in rng.sample(wrong, 2)
        ],
        answers=accepted,
        distractors=distractors,
    )


def _detail(product: Product, detail: str) -> tuple[tuple[str, ...], str, tuple[str, ...], list[str], list[str]]:
    """Phrasings, the answer, everything accepted, wrong answers, and what no answer may hold."""
    name = product.name
    if detail in ("colour", "material"):
        right = product.colour if detail == "colour" else product.material
        possible = COLOURS if detail == "colour" else MATERIALS[product.category]
        asked = (
            f"Which {detail} does the {name} have?",
            f"What is the {detail} of the {name}?",
            f"Find the {detail} of the {name}.",
        )
        wrong = [text for text in possible if text != right]
        return asked, right, (right,), wrong, wrong
    if detail == "rating":
        right = str(product.rating)
        asked = (f"What is the rating of the {name}?", f"How is the {name} rated?", f"Find the rating of the {name}.")
        wrong = [f"{tenths / 10}" for tenths in range(20, 51) if tenths / 10 != product.rating]
        return asked, right, (right,), wrong, wrong
    if detail == "delivery":
        days = product.delivery_days
        asked = (
            f"How many days does the delivery of the {name} take?",
            f"What is the delivery time of the {name} in days?",
            f"In how many days is the {name} delivered?",
        )
        wrong = [str(other) for other in range(1, 10) if other != days]
        return asked, str(days), said(days), wrong, other_counts(days)
    asked = (
        f"How many of the {name} are in stock?",
        f"What is the stock of the {name}?",
        f"How many {name} items does the shop have in stock?",
    )
    wrong = [str(product.stock + step) for step in (-2, -1, 1, 10)]
    return asked, str(product.stock), said(product.stock), wrong, other_counts(product.stock)


def count(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """How many products has a category?"""
    category = rng.choice(shop.categories)
    size = len(shop.of_category(category))
    way = click(category, f"I open {category}.")
    instruction = rng.choice(
        (
            f"How many products are in the {category} category?",
            f"Count the products in {category}.",
            f"What is the number of products in the {category} category?",
        )
    )
    return draft(
        instruction,
        wanted(shop),
        (way, answer(str(size), f"{category} has {size} products.")),
        [(way, answer(str(wrong), f"{category} has {wrong} products.")) for wrong in (size - 1, size + 2)],
        answers=said(size),
        distractors=other_counts(size),
    )


def cheapest(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Which product of a category costs least, or most?"""
    category, sort = rng.choice(shop.categories), ("price", "-price")[number]
    ranked = sorted(shop.of_category(category), key=lambda p: p.price_cents, reverse=number == 1)
    extreme = ("cheapest", "most expensive")[number]
    instruction = rng.choice(
        (
            f"What is the {extreme} product in {category}?",
            f"Which {category} product is the {extreme}?",
            f"Find the {extreme} product in the {category} category and tell me its name.",
        )
    )
    way = _sorted(category, sort)
    right = ranked[0].name
    return draft(
        instruction,
        wanted(shop),
        (*way, answer(right, f"The first product, the {right}, is the {extreme}.")),
        [(*way, answer(other.name, f"The {other.name} is the {extreme}.")) for other in (ranked[1], ranked[-1])],
        answers=[right],
        distractors=[other.name for other in ranked[1:]],
    )


def compare(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Which of two products costs less, or more?"""
    one = pick(shop, rng, 0)
    two = pick(shop, rng, number, one)
    word = rng.choice(("cheaper", "more expensive"))
    right, wrong = sorted((one, two), key=lambda product: product.price_cents, reverse=word != "cheaper")
    first, second = rng.sample((one.name, two.name), 2)
    instruction = rng.choice(
        (
            f"Which is {word}: the {first} or the {second}?",
            f"Compare the {first} and the {second}. Which one is {word}?",
            f"Is the {first} or the {second} {word}?",
        )
    )
    look = [
        replace(move, thought=f"The {one.name} costs {one.price}. I search for the {two.name}.")
        for move in spot(shop, two)
    ]
    because = f"The {one.name} costs {one.price} and the {two.name} {two.price}."
    return draft(
        instruction,
        wanted(shop),
        (*look, answer(right.name, because)),
        [
            (*look, answer(wrong.name, because)),
            (*look, answer(f"{one.name} or {two.name}", because)),
            (*look, answer(right.price, because)),
        ],
        answers=said_of_two(right.name, wrong.name, f"is {word} than"),
        distractors=[wrong.name],
    )


def navigate(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Go to a page of the help menu (task 0) or a product's page (task 1)."""
    if number == 0:
        key, other = rng.sample(list(INFO_PAGES), 2)
        thing, location = f'"{INFO_PAGES[key]}" page', f"/help/{key}"
        help_menu = click("Help", "The page is in the help menu.")
        way: Moves = (help_menu, click(INFO_PAGES[key], f"I open {INFO_PAGES[key]}."))
        astray: Moves = (help_menu, click(INFO_PAGES[other], f"I open {INFO_PAGES[other]}."))
    else:
        product, neighbour = pick(shop, rng, rng.choice((0, 1))), pick(shop, rng, 0)
        while neighbour is product:
            neighbour = pick(shop, rng, 0)
        thing, location = f"page of the {product.name}", f"/product/{product.slug}"
        way, astray = visit(shop, product), visit(shop, neighbour)
    instruction = rng.choice((f"Go to the {thing}.", f"Open the {thing}.", f"Show me the {thing}."))
    end = done("I am on the page that was asked for.")
    return draft(instruction, wanted(shop, location=location), (*way, end), [(*way[:-1], end), (*astray, end), (end,)])


def search(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Show the results for a word (task 0), or say how many there are (task 1)."""
    word, other = (text.casefold() for text in rng.sample(sorted({p.name.split()[-1] for p in shop.products}), 2))
    found = len(shop.search(word))
    look = enter(SEARCH, word, f'I search for "{word}".')
    if number == 0:
        instruction = rng.choice(
            (f'Search for "{word}".', f'Show the search results for "{word}".', f'Use the search to look for "{word}".')
        )
        end = done(f'The results for "{word}" are shown.')
        astray = enter(SEARCH, other, f'I search for "{other}".')
        return draft(instruction, wanted(shop, location=f"/search?q={word}"), (look, end), [(astray, end), (end,)])
    instruction = rng.choice(
        (
            f'How many products does a search for "{word}" find?',
            f'Search for "{word}" and tell me the number of results.',
            f'Search for "{word}". How many products are found?',
        )
    )
    return draft(
        instruction,
        wanted(shop),
        (look, answer(str(found), f"The page says {found} found.")),
        [(look, answer(str(wrong), f"The page says {wrong} found.")) for wrong in (found + 1, found + 3)],
        answers=said(found),
        distractors=other_counts(found),
    )


def filter_by_price(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Show a category's products up to a price."""
    category, other = rng.sample(shop.categories, 2)
    limit = rng.choice(_limits(shop, category))
    instruction = rng.choice(
        (
            f"Show only the {category} products up to ${limit}.",
            f"Filter {category} by a max price of ${limit}.",
            f"List the products in {category} that cost at most ${limit}.",
        )
    )
    end = done(f"Only {category} products up to ${limit} are shown.")

    def way(category: str, limit: int) -> Moves:
        return click(category, f"I open {category}."), enter(
            "Max price", str(limit), f"I set the max price to {limit}."
        )

    right = way(category, limit)
    misses = [(right[0], end), (*way(other, limit), end), (*way(category, limit + 10), end)]
    return draft(
        instruction, wanted(shop, location=f"/category/{slug(category)}?max_price={limit}"), (*right, end), misses
    )


def _limits(shop: Shop, category: str) -> list[int]:
    """Whole dollars that some of the category's products cost less than and some more, none exactly."""
    prices = sorted(product.price_cents for product in shop.of_category(category))
    between = [dollars for dollars in range(5, 90) if prices[0] < 100 * dollars < prices[-1]]
    return [dollars for dollars in between if 100 * dollars not in prices]


def sort(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Show a category's products in an order."""
    category = rng.choice(shop.categories)
    by, wrong = rng.sample([value for value in SORTS if value], 2)
    order = {"price": "price from low to high", "-price": "price from high to low", "rating": "best rating first"}[by]
    instruction = rng.choice(
        (
            f"Sort the {category} products by {order}.",
            f"Show the {category} category sorted by {order}.",
            f"Open {category} and sort it by {order}.",
        )
    )
    end = done(f"{category} is sorted as asked.")
    way = _sorted(category, by)
    return draft(
        instruction,
        wanted(shop, location=f"/category/{slug(category)}?sort={by}"),
        (*way, end),
        [(*way[:-1], end), (*_sorted(category, wrong), end), (way[0], end)],
    )


def _sorted(category: str, by: str) -> Moves:
    return (
        click(category, f"I open {category}."),
        choose("Sort by", SORTS[by], f"I choose {SORTS[by]}."),
        click("Apply", "I apply the order."),
    )

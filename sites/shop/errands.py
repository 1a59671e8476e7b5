"""Gold tasks that change something: cart, settings, reviews, orders. Their goal is the whole final state."""

import random

from sites.contract import GoldTask
from sites.moves import Moves, choose, click, done, draft, enter
from sites.shop.content import CURRENCIES, DELIVERIES, Product, Shop, initial_state
from sites.shop.drafts import look_up, open_cart, open_page, pick, visit, wanted

COMMENTS = ("Very handy", "Good value", "A bit small", "Great quality", "Works well", "Nice colour", "Too heavy")

ADD = click("Add to cart", "I put it into the cart.")
SAVE = click("Save", "I save the settings.")


def _with(shop: Shop, *added: Product, quantity: int = 1) -> dict[str, int]:
    return dict(shop.basket) | {product.slug: quantity for product in added}


def add_to_cart(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Put one product into the cart."""
    product = pick(shop, rng, number)
    other = pick(shop, rng, 0, product)
    name = product.name
    instruction = rng.choice(
        (
            f"Add the {name} to the cart.",
            f"Put the {name} into my cart.",
            f"I want to buy the {name}. Add it to the cart.",
        )
    )
    end = done(f"The {name} is in the cart.")
    way = visit(shop, product)
    return draft(
        instruction,
        wanted(shop, cart=_with(shop, product)),
        (*way, ADD, end),
        [(*way, end), (*visit(shop, other), ADD, end), (*way, ADD, *look_up(product), open_page(product), ADD, end)],
    )


def add_quantity(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Put several of one product into the cart."""
    product, quantity = pick(shop, rng, number), rng.randint(2, 5)
    name = product.name
    instruction = rng.choice(
        (
            f"Add {quantity} of the {name} to the cart.",
            f"Put the {name} into my cart, quantity {quantity}.",
            f"I need {quantity} pieces of the {name}. Add them to the cart.",
        )
    )
    end = done(f"The cart holds {quantity} of the {name}.")
    way = visit(shop, product)

    def pieces(count: int) -> Moves:
        return *way, choose("Quantity", str(count), f"I choose {count}."), ADD, end

    return draft(
        instruction,
        wanted(shop, cart=_with(shop, product, quantity=quantity)),
        pieces(quantity),
        [(*way, ADD, end), pieces(quantity % 5 + 1), (*pieces(quantity)[:-2], end)],
    )


def add_two(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Put two products into the cart."""
    one = pick(shop, rng, 0)
    two = pick(shop, rng, number, one)
    instruction = rng.choice(
        (
            f"Add the {one.name} and the {two.name} to the cart.",
            f"Put the {one.name} and also the {two.name} into my cart.",
            f"I want the {one.name} and the {two.name}. Add both to the cart.",
        )
    )
    end = done(f"The {one.name} and the {two.name} are in the cart.")
    first = (*visit(shop, one), ADD)
    both = (*first, *look_up(two), open_page(two), ADD)
    return draft(
        instruction,
        wanted(shop, cart=_with(shop, one, two)),
        (*both, end),
        [(*first, end), (*visit(shop, two), ADD, end), (*both[:-1], end)],
    )


def _in_basket(shop: Shop, rng: random.Random) -> tuple[Product, int, Product]:
    """A product in the cart, its quantity, and the other one."""
    (key, quantity), (other, _) = rng.sample(shop.basket, 2)
    return shop.by_slug[key], quantity, shop.by_slug[other]


def _remove(product: Product) -> Moves:
    return (click(f"Remove {product.name}", f"I remove the {product.name}."),)


def remove(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Take a product out of the cart."""
    product, _, other = _in_basket(shop, rng)
    name = product.name
    instruction = rng.choice(
        (
            f"Remove the {name} from the cart.",
            f"Take the {name} out of my cart.",
            f"I no longer want the {name}. Remove it from the cart.",
        )
    )
    cart, end = open_cart(shop), done(f"The {name} is no longer in the cart.")
    left = {key: quantity for key, quantity in shop.basket if key != product.slug}
    return draft(
        instruction,
        wanted(shop, cart=left),
        (cart, *_remove(product), end),
        [(cart, end), (cart, *_remove(other), end), (cart, *_remove(product), *_remove(other), end)],
    )


def set_quantity(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Change how many of a product lie in the cart."""
    product, before, other = _in_basket(shop, rng)
    name, after = product.name, rng.choice([count for count in range(1, 10) if count != before])
    instruction = rng.choice(
        (
            f"Change the quantity of the {name} in the cart to {after}.",
            f"Set the {name} in my cart to {after} pieces.",
            f"I want exactly {after} of the {name} in the cart. Change its quantity.",
        )
    )
    cart, end = open_cart(shop), done(f"The cart holds {after} of the {name}.")

    def change(changed: Product, count: int) -> Moves:
        return cart, enter(f"Quantity of {changed.name}", str(count), f"I type {count} as its quantity."), end

    return draft(
        instruction,
        wanted(shop, cart=dict(shop.basket) | {product.slug: after}),
        change(product, after),
        [
            (cart, end),
            change(product, after % 9 + 1),
            (cart, *change(other, dict(shop.basket)[other.slug] % 9 + 1)[1:2], *change(product, after)[1:]),
        ],
    )


def clear_cart(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Empty the cart, which asks back."""
    instruction = rng.choice(
        ("Clear the cart.", "Empty my cart.", "Remove everything from the cart.", "Take all items out of my cart.")
    )
    product, _, _ = _in_basket(shop, rng)
    cart, ask, end = open_cart(shop), click("Clear cart", "I clear the cart."), done("The cart is empty.")
    yes = click("Yes, clear the cart", "I confirm it.")
    return draft(
        instruction,
        wanted(shop, cart={}),
        (cart, ask, yes, end),
        [(cart, ask, end), (cart, *_remove(product), end), (cart, end)],
    )


def change_setting(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Change one setting: a choice (task 0) or the newsletter (task 1)."""
    page = click("Settings", "I open the settings.")
    before = initial_state(shop)["settings"]
    if number == 1:
        tick = click("Newsletter", "I tick the newsletter.")
        express = choose("Delivery", "Express", "I choose Express.")
        asked = (
            "Turn on the newsletter.",
            "Subscribe me to the newsletter.",
            "Switch the newsletter on in the settings.",
        )
        end = done("The settings are saved with the newsletter on.")
        state = wanted(shop, settings={**before, "newsletter": True})
        misses = [(page, tick, end), (page, SAVE, end), (page, tick, express, SAVE, end)]
        return draft(rng.choice(asked), state, (page, tick, SAVE, end), misses)
    setting, options = rng.choice((("currency", tuple(CURRENCIES)), ("delivery", DELIVERIES)))
    value, wrong = rng.sample([option for option in options if option != before[setting]], 2)
    asked = (
        f"Change the {setting} to {value}.",
        f"Set my {setting} setting to {value}.",
        f"In the settings, choose {value} as the {setting}.",
    )
    end = done(f"The settings are saved with {setting} {value}.")

    def change(option: str) -> Moves:
        return page, choose(setting.capitalize(), option, f"I choose {option}."), SAVE, end

    state = wanted(shop, settings={**before, setting: value})
    return draft(rng.choice(asked), state, change(value), [(*change(value)[:2], end), change(wrong), (page, SAVE, end)])


def write_review(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Review a product: with a comment (task 0) or stars only (task 1)."""
    product, stars = pick(shop, rng, number), rng.randint(2, 5)
    name, comment = product.name, rng.choice(COMMENTS) if number == 0 else ""
    saying = f' with the comment "{comment}"' if comment else ""
    instruction = rng.choice(
        (
            f"Write a {stars}-star review of the {name}{saying}.",
            f"Give the {name} {stars} stars in a review{saying}.",
            f"Review the {name}: {stars} stars{saying}.",
        )
    )
    end = done(f"My {stars}-star review is posted.")
    post = click("Post review", "I post the review.")

    def fill(count: int) -> Moves:
        rate = choose("Stars", str(count), f"I choose {count} stars.")
        return (rate, enter("Comment", comment, "I write the comment.")) if comment else (rate,)

    way = visit(shop, product)
    other = visit(shop, pick(shop, rng, 0, product))
    return draft(
        instruction,
        wanted(shop, reviews={product.slug: [{"stars": stars, "text": comment}]}),
        (*way, *fill(stars), post, end),
        [(*way, *fill(stars), end), (*way, *fill(stars - 1), post, end), (*other, *fill(stars), post, end)],
    )


def checkout(shop: Shop, rng: random.Random, number: int) -> GoldTask:
    """Order what lies in the cart."""
    address, elsewhere = (f"{rng.randint(2, 99)} {street}" for street in rng.sample(shop.streets, 2))
    product, _, _ = _in_basket(shop, rng)
    instruction = rng.choice(
        (
            f"Order the items in the cart to {address}.",
            f"Check out my cart and have it sent to {address}.",
            f"Place an order for what is in my cart, address {address}.",
        )
    )
    cart, proceed = open_cart(shop), click("Checkout", "I go to the checkout.")
    place, end = click("Place order", "I place the order."), done("The order is placed.")

    def send(to: str) -> Moves:
        return proceed, enter("Address", to, f"I type the address {to}."), place, end

    placed = {"items": dict(shop.basket), "name": shop.customer, "email": shop.email, "address": address}
    return draft(
        instruction,
        wanted(shop, cart={}, orders=[placed]),
        (cart, *send(address)),
        [(cart, *send(address)[:2], end), (cart, *send(elsewhere)), (cart, *_remove(product), *send(address))],
    )

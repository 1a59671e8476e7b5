"""The shop's gold tasks: their kinds."""

from sites.shop import errands, questions
from sites.shop.drafts import Draft

KINDS: dict[str, Draft] = {
    "find_price": questions.find_price,
    "find_detail": questions.find_detail,
    "count": questions.count,
    "cheapest": questions.cheapest,
    "compare": questions.compare,
    "navigate": questions.navigate,
    "search": questions.search,
    "filter": questions.filter_by_price,
    "sort": questions.sort,
    "add_to_cart": errands.add_to_cart,
    "add_quantity": errands.add_quantity,
    "add_two": errands.add_two,
    "remove": errands.remove,
    "set_quantity": errands.set_quantity,
    "clear_cart": errands.clear_cart,
    "change_setting": errands.change_setting,
    "write_review": errands.write_review,
    "checkout": errands.checkout,
}

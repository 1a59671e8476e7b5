"""The help desk's gold tasks: their kinds."""

from sites.helpdesk import errands, questions
from sites.helpdesk.drafts import Draft

KINDS: dict[str, Draft] = {
    "find_fact": questions.find_fact,
    "agent_fact": questions.agent_fact,
    "count_tickets": questions.count_tickets,
    "count_articles": questions.count_articles,
    "compare": questions.compare,
    "compare_tickets": questions.compare_tickets,
    "navigate": questions.navigate,
    "search": questions.search,
    "filter": questions.filter_by_status,
    "sort": questions.sort,
    "comment": errands.comment,
    "set_status": errands.set_status,
    "set_priority": errands.set_priority,
    "assign": errands.assign,
    "bookmark": errands.bookmark,
    "remove_bookmark": errands.remove_bookmark,
    "helpful": errands.helpful,
    "new_ticket": errands.new_ticket,
    "change_setting": errands.change_setting,
}

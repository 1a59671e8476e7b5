"""The forum's gold tasks: their kinds."""

from sites.forum import errands, questions
from sites.forum.drafts import Draft

KINDS: dict[str, Draft] = {
    "who_started": questions.who_started,
    "member_city": questions.member_city,
    "member_joined": questions.member_joined,
    "count_replies": questions.count_replies,
    "count_threads": questions.count_threads,
    "compare_votes": questions.compare_votes,
    "most_replies": questions.most_replies,
    "most_votes": questions.most_votes,
    "open_thread": questions.open_thread,
    "open_place": questions.open_place,
    "search_count": questions.search_count,
    "reply": errands.reply,
    "upvote": errands.upvote,
    "follow": errands.follow,
    "upvote_and_follow": errands.upvote_and_follow,
    "new_thread": errands.new_thread,
    "change_setting": errands.change_setting,
}

"""Movie titles as GroupLens writes them: "Usual Suspects, The (1995)"."""

from __future__ import annotations

import re

# Articles as they stand at the end of a title, in the languages that MovieLens has.
_ARTICLES = "The|An|A|Les|Le|La|L'|Une|Un|Das|Der|Die|Ein|Eine|Il|Lo|Gli|El|Los|Las|Una|Det|Den|O|Os|As"
_TRAILING = re.compile(rf"^(?P<rest>.+), (?P<article>{_ARTICLES})$")
_PARENTHESIS = re.compile(r"\(([^()]*)\)")
_YEAR = re.compile(r"\((\d{4})\)")


def front_articles(title: str) -> str:
    """Move articles to the front, in the title and in each alternative title in parentheses.

    "Big Blue, The (Grand bleu, Le) (1988)" becomes "The Big Blue (Le Grand bleu) (1988)".
    """
    main, parenthesis, rest = title.partition("(")
    stripped = main.rstrip()
    alternatives = _PARENTHESIS.sub(lambda match: f"({_front(match[1])})", parenthesis + rest)
    return _front(stripped) + main[len(stripped) :] + alternatives


def year_of(title: str) -> int | None:
    """The last year in parentheses: "Shall we dance? (Dansu wo shimashouka) (1997)" is of 1997."""
    years = _YEAR.findall(title)
    return int(years[-1]) if years else None


def _front(text: str) -> str:
    match = _TRAILING.match(text)
    if match is None:
        return text
    article = match["article"]
    return article + ("" if article.endswith("'") else " ") + match["rest"]

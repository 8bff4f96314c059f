"""The parts of a page that a script writes."""

import re


def replace_block(page: str, name: str, text: str) -> str:
    """Put a text between `<!-- name -->` and `<!-- end of name -->`.

    Raises
    ------
    ValueError
        If the page does not hold the two marks exactly once.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    page, found = re.subn(f"{start}.*?{end}", lambda _: f"{start}\n{text}\n{end}", page, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"a page must hold one block from {start} to {end}, this one holds {found}")
    return page


def block_of(page: str, name: str) -> str:
    """The text that stands between `<!-- name -->` and `<!-- end of name -->`."""
    _, _, rest = page.partition(f"<!-- {name} -->\n")
    return rest.partition(f"\n<!-- end of {name} -->")[0]

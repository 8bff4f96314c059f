"""What JSON that was read from a file must look like: forms, and the one place that holds files to them.

A form is a `Leaf`, or a mapping of the keys that an object must have to their forms; keys that no form names are let be.
"""

import json
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from mpo_tutorial.experiments.statistics import METRICS

LARGEST = 10**18  # nothing that is counted here comes near it, and as a float it is exact enough to be shown


class Leaf(NamedTuple):
    """A form in words, and whether a value has it."""

    what: str
    fits: Callable[[Any], bool]


Form: TypeAlias = Leaf | Mapping[str, "Form"]


def parsed(text: str | bytes, what: str, form: Form, advice: str) -> Any:
    """The value of some JSON.

    Parameters
    ----------
    what : str
        How to call the text, such as the path of its file.
    advice : str
        What a reader should do if it is not as it must be.

    Raises
    ------
    ValueError
        If the text is no JSON, or its value does not have the form.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} must be JSON, it is not ({error}); {advice}") from error
    require(value, what, form, advice)
    return value


def require(value: Any, what: str, form: Form, advice: str) -> None:
    """Refuse, by a ValueError, a value that does not have the form; parameters as in `parsed`."""
    for place, missed, found in _misfits(value, form, ()):
        where = f" at {'.'.join(place)}" if place else ""
        raise ValueError(f"{what} must have {missed}{where}, {found}; {advice}")


def _misfits(value: Any, form: Form, place: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], str, str]]:
    """Where a value does not have the form, what should be there, and what is."""
    if isinstance(form, Leaf):
        if not form.fits(value):
            yield place, form.what, _there(value)
    elif not isinstance(value, dict):
        yield place, OBJECT.what, _there(value)
    else:
        for key, inner in form.items():
            if key in value:
                yield from _misfits(value[key], inner, (*place, key))
            else:
                yield (*place, key), inner.what if isinstance(inner, Leaf) else OBJECT.what, "it is missing"


def _there(value: Any) -> str:
    return f"there is {'null' if value is None else reprlib.repr(value)}"


def word(wanted: str) -> Leaf:
    """The form of one text."""
    return Leaf(f"the word {wanted}", lambda value: value == wanted)


def items(what: str, fits: Callable[[Any], bool]) -> Leaf:
    """The form of a list with something in it, of which each item fits."""
    return Leaf(what, lambda value: isinstance(value, list) and value != [] and all(map(fits, value)))


def is_number(value: Any) -> bool:
    """Whether it is a number that is finite, and not too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and is_number(value) and value > 0


def _is_share(value: Any) -> bool:
    return is_number(value) and -1 <= value <= 1


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_share, value)) and value[0] <= value[1]


def _is_score(value: Any) -> bool:
    """Whether it is what `statistics.score` gives."""
    if not isinstance(value, dict) or not _is_count(value.get("n")) or not is_text(value.get("right")):
        return False
    accuracy, interval, right = (value.get(name) for name in ("accuracy", "interval", "right"))
    if not _is_share(accuracy) or not _is_interval(interval) or not interval[0] <= accuracy <= interval[1]:
        return False
    try:
        return len(bytes.fromhex(right)) == (value["n"] + 7) // 8
    except ValueError:
        return False


def _is_judged(value: Any) -> bool:
    """Whether it is what `threshold.judge` gives."""
    if not _is_score(value) or not {"auc", "refitted"} <= value.keys():
        return False
    if value["auc"] is None:
        return value["refitted"] is None
    return _is_share(value["auc"]) and _is_score(value["refitted"])


def _is_measured(value: Any) -> bool:
    """Whether it is what `statistics.measure` gives."""
    if not isinstance(value, dict) or not _is_count(value.get("n")):
        return False
    metrics = value.get("metrics")
    if metrics is None or "accuracy" in value:
        return _is_score(value) and (metrics is None or _are_metrics(metrics))
    return _are_metrics(metrics)


def _are_metrics(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value != {}
        and value.keys() <= METRICS.keys()
        and all(
            isinstance(found, dict) and _is_share(found.get("value")) and _is_interval(found.get("interval"))
            for found in value.values()
        )
    )


ANYTHING = Leaf("a value", lambda _: True)
OBJECT = Leaf("a JSON object", lambda value: isinstance(value, dict))
TEXT = Leaf("a text", is_text)
TEXTS = items("a list of texts", is_text)
NUMBER = Leaf("a number", is_number)
NUMBERS = items("a list of numbers", is_number)
COUNT = Leaf("a count of at least 1", _is_count)
SCORE = Leaf("a count, an accuracy in its interval, and which sentences were right", _is_score)
JUDGED = Leaf("a score, an AUC, and a score with the bias fitted again", _is_judged)
MEASURED = Leaf("a count and metrics with their intervals", _is_measured)

# What a fine-tuning says of itself, besides what it measured.
COSTS: Mapping[str, Form] = {
    "parameters": {"trained": COUNT, "total": COUNT},
    "stored_bytes": COUNT,
    "train_sentences": COUNT,
    "seconds": {"train": NUMBER},
}
RUN: Mapping[str, Form] = {"kind": word("finetune"), "config": {"model": TEXT, "task": TEXT}, **COSTS}
POINT: Mapping[str, Form] = {
    "study": TEXT,
    "version": COUNT,
    "stage": TEXT,
    "setting": OBJECT,
    "result": OBJECT,
    "command": TEXT,
    "date": TEXT,
    "versions": {"torch": TEXT},
    "hardware": {"cpu": TEXT, "threads": COUNT},
}

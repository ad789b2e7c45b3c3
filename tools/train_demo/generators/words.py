"""The word lists of data/words.txt as Python values, and invented words that force the model to copy from its prompt."""
from . import spin

_raw = spin.sections("words.txt")


def _list(name):
    return [w.strip() for line in _raw[name] for w in line.split(";") if w.strip()]


def _table(name):
    return [tuple(c.strip() for c in line.split("|")) for line in _raw[name]]


ANIMALS, PEOPLE, FANTASY = _table("animals"), _table("people"), _table("fantasy")
MACHINES, FIXED = _table("machines"), _table("fixed")
PLACES = [tuple(p.split(" | ")) for p in _list("places")]
THINGS, GIRLS, BOYS, PETNAMES = _list("things"), _list("girls"), _list("boys"), _list("petnames")
TRAITS, SIZES, COLORS, LOOKS, DAYS = _list("traits"), _list("sizes"), _list("colors"), _list("lookadj"), _list("daysadj")
GOOD, BAD, VERBS, SEEN = _list("feelpos"), _list("feelneg"), _list("verbs"), _list("seenouns")
FOODS, THEMES = _list("foods"), _list("themes")
SUITS = {name: _list(name) for name in ("things", "toys", "tools", "breakable", "buildable", "heavythings", "snow", "carry", "made", "hide", "boating", "indoor")}
HELD_OUT = set(" ".join(spin.lines("heldout.txt")).split())


def held_out(phrase):
    """True if a prompt with this phrase would ask for a subject that evaluation keeps for itself."""
    return any(w in HELD_OUT for w in phrase.lower().replace(".", " ").replace(",", " ").replace("?", " ").split())


def invented(rng):
    """A word that nobody knows: 'zibble', 'torvin'."""
    syllable = lambda: rng.choice("bdfgjklmnprstvwz") + rng.choice(["a", "e", "i", "o", "u", "oo", "ee"])
    word = syllable() + rng.choice(["", "b", "l", "m", "n", "r", "s", "z"]) + syllable()
    return word + rng.choice(["", "n", "r", "l", "x", "k", "m", "ble", "t", "sh"])

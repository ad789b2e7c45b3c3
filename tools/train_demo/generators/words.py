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


NOUNS = []  # singular nouns of the tales, set by use_nouns


def use_nouns(nouns):
    NOUNS[:] = [n for n in nouns if n not in HELD_OUT]


def invented(rng):
    """A word that nobody knows: 'zibble', 'torvin', 'moonkettle'."""
    if rng.random() < 0.4:
        return rng.choice(_SHORT) + rng.choice(_SHORT)
    onset = lambda: rng.choice("b c d f g h j k l m n p r s t v w z bl br ch cl cr dr fl fr gl gr pl pr sh sk sl sm sn sp st str sw th tr".split())
    nucleus = lambda: rng.choice(["a", "e", "i", "o", "u", "a", "e", "i", "o", "oo", "ee", "ea", "ai", "ou"])
    coda = lambda: rng.choice(["", "", "b", "l", "m", "n", "r", "s", "p", "ck", "rt", "nd", "mp", "ll"])
    word = "".join(onset() + nucleus() + coda() for _ in range(rng.choice([1, 2, 2, 2, 3])))
    return word + rng.choice(["", "", "er", "ing", "le", "on", "y", "ard", "et", "ine", "o", "a", "us"])


def invented_name(rng):
    syllable = lambda: rng.choice("b d f g h j k l m n p r s t v w z br dr fr gr kr tr zh th".split()) + rng.choice("a e i o u a e i o ai ei io".split())
    name = rng.choice(["", "", rng.choice("AEIOU").lower()]) + "".join(syllable() for _ in range(rng.choice([1, 1, 2, 2, 3])))
    return (name + rng.choice(["", "n", "r", "l", "k", "s", "m", "th", "na", "la", "ta", "bert", "wen"])).capitalize()


_SHORT = [w for w in dict.fromkeys(THINGS + SEEN) if w.isalpha() and len(w) <= 6 and w not in HELD_OUT]


def anything(rng, odd):
    """Any noun at all: a known one, one of the tales, or (if odd) an invented one; never one that evaluation keeps for itself."""
    kind = rng.random()
    if kind < 0.35 and NOUNS:
        return rng.choice(NOUNS)
    if kind < 0.55 or not odd:
        while True:
            word = rng.choice(rng.choice([THINGS, SEEN, [p[0] for p in PLACES], [m[0] for m in MACHINES]]))
            if not held_out(word):
                return word
    return invented(rng)

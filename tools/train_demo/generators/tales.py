"""TinyStories, given in lower case without marks between stories: split, repaired, cased by rules, and varied.

The source keeps one story per block of paragraphs; a line that follows another without an empty line opens a new story.
`vary` exchanges names, animals, toys, foods and colours throughout a story, so that a small set of stories teaches language
rather than itself. Nothing here invents sentences.
"""
import collections
import lzma
import re

from . import spin, words as W

_MOJIBAKE = [("â€™", "'"), ("â€œ", '"'), ("â€˜", "'"), ("â€“", "-"), ("â€”", "-"), ("â€¦", "..."), ("â€", '"'), ("“", '"'), ("”", '"'), ("’", "'")]
_NOT_NAMES = set("""out her a the for his him to it them an how after by in on something someone one my me your this that what big up little two
no each other she he its us they their names and if when as while at so very again with of was is mom dad mommy daddy""".split())
_WORDS_TOO = set("""daisy rose may will bill frank grace joy sunny spot blue red fin hop star bear winter olive hazel ivy violet iris june
robin mark fluffy snowy spike ducky brownie floppy furry kitty teddy sandy peanut nutty rover bun pat buzz rocky lucky blacky max ray
patch art pip tweet tweety chirpy buddy bunny sparky mittens dolly polly beep bloom motion spirit dependable skeleton skip ruby""".split())
_FAMILY = "mom|dad|mommy|daddy|mum|mummy|mama|papa|grandma|grandpa"
_OWNED = r"(?:(?:my|your|his|her|their|our|the|a|an|its|'s|s|and|both|new|good|nice|kind|little|old)\s)"
_DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday|january|february|april|june|july|august|september|october|november|december|christmas|halloween|easter"
_SPEECH = r"(?:said|asked|replied|answered|shouted|cried|called|exclaimed|yelled|whispered|laughed|thought|says|told|screamed|added|explained|agreed|begged|sang|giggled|smiled|wondered|barked|roared|responded|squeaked|chirped|meowed|declared)"


def load(path):
    """The stories of the file, lower-cased as they are, repaired and split."""
    text = lzma.open(path, "rt", encoding="utf-8").read()
    for bad, good in _MOJIBAKE:
        text = text.replace(bad, good)
    stories, current, blank = [], [], True
    for line in text.split("\n"):
        line = re.sub(r"\s+", " ", line).strip()
        if not line:
            blank = True
            continue
        if current and not blank:
            stories.append(current)
            current = []
        current.append(line)
        blank = False
    stories.append(current)
    keep = ["\n\n".join(s) for s in stories]
    return [s for s in keep if s.isascii() and 150 < len(s) < 4000 and s[-1] in '.!?"']


def find_names(stories):
    """Names used as "named X" at least twice in the corpus; those that are also ordinary words are left out."""
    count = collections.Counter(n for s in stories for n in re.findall(r"(?:named|called) ([a-z]+)", s))
    names = {n for n, c in count.items() if c >= 2} | {n.lower() for n in W.GIRLS + W.BOYS}
    return {n for n in names if n not in _NOT_NAMES and n not in _WORDS_TOO and len(n) > 2}


def truecase(story, names):
    local = {n for n in re.findall(r"(?:named|name was|name is|call him|call her|call it|i am|i'm) ([a-z]+)", story) if n not in _NOT_NAMES}
    local = {n for n in local if n in names or n in _WORDS_TOO or re.search(rf"(?:named|call (?:him|her|it)) {n}\b", story)}
    t = re.sub(r"\bi\b", "I", story)
    known = {n for n in names | local if n in t}
    t = re.sub(r"\b[a-z]+\b", lambda m: m.group().capitalize() if m.group() in known else m.group(), t)
    t = re.sub(rf"(?<!\w)({_OWNED})?({_FAMILY})\b", lambda m: m.group() if m.group(1) else m.group(2).capitalize(), t)
    t = re.sub(rf"\b({_DAYS}|mr|mrs|dr|miss(?= [A-Z]))\b", lambda m: m.group().capitalize(), t)
    t = re.sub(r"\b(Mr|Mrs|Dr)(\.?) ([a-z]+)", lambda m: f"{m.group(1)}{m.group(2)} {m.group(3).capitalize()}", t)
    return _sentence_starts(t)


def _sentence_starts(text):
    """Capitals at starts of paragraphs, sentences and quotes; a quote that goes on after `," X said, "` keeps its lower case."""
    out, quote = [], False
    for paragraph in text.split("\n\n"):
        quote, chars = False, list(paragraph)
        start, went_on = True, False
        for i, c in enumerate(chars):
            if c == '"':
                quote = not quote
                if quote:
                    start = not (went_on and i >= 2 and chars[i - 2] == ",")
                else:
                    last = chars[i - 1] if i else ""
                    rest = "".join(chars[i + 1:i + 60]).lower()
                    verb_follows = re.match(rf" (?:\w+ ){{1,4}}?{_SPEECH}\b|\s{_SPEECH}\b", rest)
                    start = last == "." or (last in "!?" and not verb_follows)
                    went_on = last == ","
            elif c in ".!?":
                start = c == "." and (i + 1 >= len(chars) or chars[i + 1] in ' "') or c in "!?"
                if not quote:
                    went_on = False
            elif c.isalpha():
                if start:
                    chars[i] = c.upper()
                start = False
            elif c.isdigit():
                start = False
        out.append("".join(chars))
    return "\n\n".join(out)


_ANIMALS = "cat dog rabbit mouse frog duck squirrel fox bear lion tiger monkey elephant bird pig cow sheep goat horse owl turtle fish bunny puppy kitten deer wolf crab snail bee ant spider butterfly giraffe zebra penguin hippo whale dolphin dragon chicken parrot raccoon hedgehog otter seal lizard crow".split()
_GROUPS = [
    "ball doll kite drum truck teddy robot puppet puzzle balloon bike scooter wagon train whistle boat game sled flute guitar trumpet".split(),
    "cake pie cookie sandwich pizza apple banana pear carrot orange peach muffin pancake lemon tomato potato pumpkin melon".split(),
    "red blue green yellow purple orange pink brown white black gray".split(),
    "hat scarf coat dress shirt sweater cape crown necklace bracelet ring".split(),
    "box bag basket bucket jar pot sack chest".split(),
    "doctor farmer baker teacher sailor painter king queen pirate knight wizard witch fairy princess prince".split(),
    "forest jungle meadow field valley desert".split(),
    "rock stone shell feather leaf stick coin button marble gem key".split(),
]


def plural_of(noun):
    """The plural of a noun of the groups above."""
    odd = {"mouse": "mice", "wolf": "wolves", "leaf": "leaves", "sheep": "sheep", "deer": "deer", "fish": "fish"}
    if noun in odd:
        return odd[noun]
    if noun in ("box", "fox", "witch", "dress", "sandwich", "peach"):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun not in ("monkey", "key") else noun + "s"


def vary(story, rng, names):
    """A copy of a cased story with some names and nouns exchanged for others of their kind, everywhere in the story."""
    table = {}
    present = set(re.findall(r"[A-Za-z]+", story))
    girls, boys = set(W.GIRLS), set(W.BOYS)
    for name in sorted(n for n in present if n in girls or n in boys):
        if rng.random() < 0.7 and not (name in girls and name in boys):
            new = rng.choice(W.GIRLS if name in girls else W.BOYS) if rng.random() < 0.8 else W.invented_name(rng)
            if new not in present and new not in table.values() and new.lower() not in present:
                table[name] = new
    for group in _GROUPS + [_ANIMALS]:
        here = [w for w in group if w in present or w + "s" in present]
        if not here or rng.random() > 0.35:
            continue
        if group is _ANIMALS and re.search(r"\b(meow|bark|woof|buzz|quack|moo|roar|web|swim|swam|fly|flew|wings?|sea|ocean|hop|hopped|tail)\w*\b", story):
            continue
        for w in here:
            new = rng.choice(group)
            if new not in present and new not in table.values() and rng.random() < 0.8:
                table[w] = new
    if not table:
        return story

    def swap(m):
        w = m.group(1)
        low = w.lower()
        new = table.get(w) or (table.get(low) if low in table and low not in ("rose",) else None)
        if new is None and w.endswith("s") and table.get(low[:-1]):
            new = plural_of(table[low[:-1]])
        if new is None:
            return w
        return (new[0].upper() if w[0].isupper() else new[0]) + new[1:]
    text = re.sub(r"\b([A-Za-z]+)\b", swap, story)
    text = re.sub(r"\b([Aa])n? (?=[A-Za-z])", lambda m: m.group(1) + " ", text)
    return spin.articles(text)


class Nouns:
    """Which words of the corpus are nouns, adjectives or verbs that a prompt may ask for."""

    def __init__(self, stories):
        count, noun, verb, adjective = (collections.Counter() for _ in range(4))
        for s in stories:
            count.update(re.findall(r"[a-z]+", s))
            noun.update(re.findall(r"\b(?:a|an|the|his|her|my|their)(?: (?:big|little|small|old|new|red|blue|nice|pretty))? ([a-z]+)(?=[.,!?;]|\s(?:and|was|is|to|in|on|that|with|had|who|said|were|could|but|because)\b)", s))
            verb.update(re.findall(r"\b(?:to|can|could|will|would|can't|not|let's) ([a-z]+)\b", s))
            adjective.update(re.findall(r"\b(?:was|were|is|so|very|felt|too) ([a-z]+)(?=[.,!?]| and\b)", s))
        # the most frequent words make poor requests: almost every story has them
        usable = [w for w, c in count.most_common() if c >= 3][60:]
        bad = set("""it her him them this that there end best way lot day time one two other first next end moment while name back idea thing
        something everyone all more out up down away home again same end rest help while world play go see do be say make want have get look
        top side middle kind lots bit first last not very much""".split())
        self.nouns = {w for w in usable if len(w) > 2 and w not in bad and noun[w] >= 2 and noun[w] > 0.18 * count[w] and noun[w] > verb[w]}
        self.verbs = {w for w in usable if len(w) > 2 and w not in bad and verb[w] >= 3 and verb[w] > 0.35 * count[w]}
        self.adjectives = {w for w in usable if len(w) > 2 and w not in bad and w not in self.nouns and adjective[w] >= 2
                           and adjective[w] > 0.15 * count[w] and not w.endswith(("ed", "ing"))}


_MASS = set("""water food milk money music sand mud wind hair fun grass snow rain bread juice candy soup wood paper fire cheese honey butter rice sugar
gold ice air light dirt glue soap jam salt clay hay ink oil lemonade laundry tea magic kindness love joy courage luck weather furniture fruit medicine
friendship sunlight sunshine darkness strength energy wool thunder lightning sharing""".split())
_PLURAL = set("children people men women mice teeth feet parents clothes geese sheep".split())
_DULL = set("mom mommy dad daddy mum mummy park girl boy friend friends man heart noise morning".split())


def _phrase(noun, adjective=""):
    plural = noun in _PLURAL or noun in _MASS or (noun.endswith("s") and not noun.endswith(("ss", "us")))
    return ("" if plural else "a ") + (adjective + " " if adjective else "") + noun


def singular_nouns(kinds):
    """Nouns of the corpus that can stand after "a"."""
    return sorted(n for n in kinds.nouns if n not in _MASS and n not in _PLURAL and n not in _DULL and not (n.endswith("s") and not n.endswith(("ss", "us")))
                  and len(n) < 12 and n not in _UNFIT)


_UNFIT = set("""gun missile butcher urge luxury poverty fashion guilt shame attention idiot drunk cigarette beer wine corpse skeleton knife bomb prisoner
war poison threat jailer weapon danger death blood today tonight tomorrow yesterday everybody nobody anybody moment while rest start half lots bit someone anyone thanks please okay""".split())


def requests(story, rng, kinds):
    """Subjects and words that a prompt for this story may name, or empty lists when it has no clear subject."""
    low = story.lower()
    tokens = re.findall(r"[a-z]+", low)
    count = collections.Counter(tokens)
    opening = low[:len(low) * 2 // 3]
    nouns = sorted((w for w in kinds.nouns - _DULL if count[w] >= 2 and w in opening), key=lambda w: (-count[w], w))
    subjects = []
    for n in nouns[:4]:
        subjects.append(_phrase(n))
        adjective = re.search(rf"\b(?:a|an|the) ([a-z]+) {n}\b", low)
        if adjective and adjective.group(1) in kinds.adjectives | set(W.COLORS) | {"big", "little", "small", "old"}:
            subjects.append(_phrase(n, adjective.group(1)))
    named = re.search(r"\b([a-z]+) named ([A-Z][a-z]+)", story)
    if named:
        subjects += [f"a {named.group(1)} named {named.group(2)}"] * 2
    if len(nouns) > 1 and not (named and rng.random() < 0.5):
        subjects.append(f"{_phrase(nouns[0])} and {_phrase(nouns[1])}")
    pool = [sorted(w for w in kind if count[w]) for kind in (kinds.nouns, kinds.verbs, kinds.adjectives)]
    chosen = [rng.choice(p) for p in pool if p]
    extra = [w for w in pool[0] + pool[1] if w not in chosen]
    rng.shuffle(extra)
    words = list(dict.fromkeys(chosen + extra))[:3]
    return [spin.articles(s) for s in subjects], words if len(words) == 3 else []

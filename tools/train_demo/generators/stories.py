"""Short stories from the plots in data/plots.txt and data/fixed_plots.txt.

A story keeps its world straight: a character has one name, one set of pronouns and is introduced when first mentioned; the
thing the plot turns on stays the same thing. `story(rng)` returns a dict: text, subjects (phrases that it may be asked for by,
without article unless it has one), words (three content words that it surely contains), hero (reference), about (short phrase).
"""
from . import spin, words as W

PLOTS = []
for _title, _body in ((t, b) for t, b in spin.sections("plots.txt", r"^= (.+)$()").items()):
    _name, _themes, _suits, _where = (field.strip() for field in _title.split(";"))
    PLOTS.append({"themes": _themes.split(", "), "suits": _suits, "where": _where, "body": _body})
FIXED_PLOTS = list(spin.sections("fixed_plots.txt", r"^= (.+)$()").values())
PARTS = spin.sections("story_parts.txt", r"^= (.+)$()")

HE, SHE, IT = ("he", "him", "his", "himself"), ("she", "her", "her", "herself"), ("it", "it", "its", "itself")


class Character:
    """Somebody in a story. ref: how the text calls him; intro: with the article, for the first time; call: to his face."""

    def __init__(self, noun, name, pronouns, adjective, home="", love="", species=""):
        self.noun, self.name, self.pronouns, self.home = noun, name, pronouns, home
        self.love = love.replace(" its ", f" {pronouns[2]} ")
        phrase = f"{adjective} {noun}".strip()
        self.intro = f"a {phrase} named {name}" if name else f"a {phrase}"
        self.ref = name or f"the {noun}"
        self.call = name or noun[0].upper() + noun[1:]
        self.known = False
        self.kinds = [f"a {noun}", f"a {phrase}"] + ([f"a {noun} named {name}"] * 2 if name else [])


CHILD_HOMES = ["in a small house near the [river|forest|sea|park|hill|market]", "in a [little|quiet|busy] [village|town]",
               "in a [red|white|yellow|blue] house with [a big garden|a green door|many windows]", "on a farm", "by the sea",
               "at the edge of the forest", "in a big city", "in a small town", "with {his} [mother|father|grandmother|family] in a small house",
               "next to [the park|an old mill|the school|a pond]"]
CHILD_LOVES = ["play outside", "read books", "play with {his} friends", "look at the stars", "help {his} mother", "draw pictures", "sing songs",
               "play in the rain", "ask questions", "climb trees", "collect stones", "listen to stories", "play with toys", "run in the park",
               "make new friends", "feed the birds", "swim in the lake", "ride a bike", "bake cookies", "build things"]


def child(rng, gender=None):
    girl = rng.random() < 0.5 if gender is None else gender == "girl"
    pronouns = SHE if girl else HE
    name = rng.choice(W.GIRLS if girl else W.BOYS)
    if rng.random() < 0.06:
        name = W.invented(rng).capitalize()
    own = lambda text: spin.spin(text, rng, lambda _: pronouns[2])
    adjective = rng.choice(["little", "little", "young", "small", "", rng.choice(W.TRAITS), rng.choice(W.TRAITS) + " little"])
    return Character("girl" if girl else "boy", name, pronouns, adjective, own(rng.choice(CHILD_HOMES)), own(rng.choice(CHILD_LOVES)))


FEMALE = {"queen", "princess", "fairy", "witch", "mermaid", "hen", "cow", "doll", "ladybug"}
MALE = {"king", "prince", "wizard", "snowman", "rooster", "fisherman", "postman", "knight"}


def being(rng, row, named=0.6):
    """An animal, person, fantasy creature or machine from its row of the word lists."""
    noun, home, love = row[0], row[1], row[3] if len(row) == 5 else row[-1]
    if rng.random() < 0.02:
        noun, home = W.invented(rng), rng.choice(W.ANIMALS)[1]
    name = ""
    pronouns = SHE if noun in FEMALE else HE if noun in MALE else rng.choice([HE, SHE])
    person = row in W.PEOPLE
    if rng.random() < named:
        name = rng.choice((W.GIRLS if pronouns is SHE else W.BOYS) if person or rng.random() < 0.25 else W.PETNAMES)
        if rng.random() < 0.08:
            name = W.invented(rng).capitalize()
    elif not person and noun not in FEMALE | MALE and rng.random() < 0.3:
        pronouns = IT
    adjectives = ["", rng.choice(W.TRAITS), rng.choice(W.SIZES), "little"]
    if not person:
        adjectives += [rng.choice(W.COLORS), "little " + rng.choice(["brown", "white", "gray", "black", "red"])]
    return Character(noun, name, pronouns, rng.choice(adjectives), home, love)


def hero(rng):
    kind = rng.choices(["child", "animal", "person", "fantasy", "machine"], [30, 36, 12, 13, 9])[0]
    if kind == "child":
        return child(rng)
    return being(rng, rng.choice({"animal": W.ANIMALS, "person": W.PEOPLE, "fantasy": W.FANTASY, "machine": W.MACHINES}[kind]))


LAND = [row for row in W.ANIMALS if row[0] not in ("whale", "dolphin", "octopus", "fish", "crab", "seal", "worm", "caterpillar", "hippo", "eagle")]


def friend(rng, main):
    """A second character who can be told apart from the hero."""
    while True:
        other = child(rng) if rng.random() < (0.6 if main.noun in ("girl", "boy") else 0.15) else being(rng, rng.choice(LAND), 0.5)
        if other.noun != main.noun and other.name != main.name or (other.name and main.name and other.name != main.name):
            break
    if other.name and rng.random() < 0.35:
        other.intro = f"{main.pronouns[2]} friend {other.name}" if other.noun in ("girl", "boy") else \
            f"{main.pronouns[2]} friend {other.name} the {other.noun}"
    return other


ELDERS = [("grandmother", SHE), ("grandfather", HE), ("mother", SHE), ("father", HE)]
WISE = ["old owl", "old turtle", "old man", "old woman", "wise old bear", "gray goose", "old wizard", "old raven", "kind neighbor", "old shepherd",
        "old fisherman", "kind teacher"]


def elder(rng, main):
    if rng.random() < 0.45:
        noun, pronouns = rng.choice(ELDERS)
        other = Character(noun, "", pronouns, "")
        other.intro = other.ref = f"{main.pronouns[2]} {noun}"
        other.call = noun.capitalize()
    elif rng.random() < 0.25:
        other = Character("grandma", "Grandma", SHE, "") if rng.random() < 0.5 else Character("grandpa", "Grandpa", HE, "")
        other.intro = other.name
    else:
        noun = rng.choice([w for w in WISE if main.noun not in w])
        she = "woman" in noun or (noun in ("kind teacher", "gray goose", "old owl", "kind neighbor") and rng.random() < 0.5)
        other = Character(noun, "", SHE if she else HE, "")
        other.call = noun.split()[-1].capitalize()
    return other


OUTDOORS = [p for p in W.PLACES if p[0] not in W.SUITS["indoor"]]
SAD = ["sad", "very sad", "worried", "upset", "unhappy", "lonely", "sad and tired", "gloomy"]
SKILLS = ["swim", "dance", "sing", "draw", "paint", "climb", "read", "write", "whistle", "bake", "juggle", "skip", "fly a kite", "ride a bike", "sew", "knit",
          "play the flute", "play the drum", "cook", "jump rope", "skate", "dive", "build a fire", "tie knots", "count", "race", "spin", "play chess"]


class Scene:
    """The values of the slots while one story is written."""

    def __init__(self, rng, plot):
        self.rng, self.main = rng, hero(rng)
        self.wishes = wishes = _wishes(rng)
        self.cast = {"h": self.main, "f": friend(rng, self.main), "e": elder(rng, self.main)}
        self.thing = rng.choice(W.SUITS[plot["suits"]])
        if wishes.get("noun") == self.thing or self.thing == self.main.noun:
            self.thing = rng.choice(W.THINGS)
        self.look = rng.choice(W.COLORS if rng.random() < 0.5 else W.LOOKS)
        self.place, self.preposition = rng.choice(OUTDOORS if plot["where"] == "outdoors" else W.PLACES)
        self.fixed = {"food": rng.choice(W.FOODS), "love": self.main.love, "home": self.main.home, "day": rng.choice(W.DAYS),
                      "v": rng.choice(SKILLS), "v0": rng.choice(W.VERBS), "trait0": rng.choice(W.TRAITS),
                      "food1": rng.choice(["cake", "soup", "pie", "bread", "jam"]),
                      "seen": rng.choice(["butterfly", "rabbit", "bird", "cat", "squirrel", "frog", "dog", "balloon", "ball"]),
                      "heavy": rng.choice(["heavy", "very heavy", "hard work", "a long way"])}
        self.bad, self.good = rng.choice(SAD), rng.choice(W.GOOD)
        if wishes.get("feel") in W.GOOD:
            self.good = wishes["feel"]
        elif "feel" in wishes:
            self.bad = wishes["feel"]
        if "dayadj" in wishes:
            self.fixed["day"] = wishes["dayadj"]
        self.weaves = [k for k in ("noun", "verb") if k in wishes]
        rng.shuffle(self.weaves)

    def start_weaves(self):
        """Sentences of the opening that carry some of the wished words."""
        out = []
        for kind in list(self.weaves):
            if self.rng.random() < 0.6:
                self.weaves.remove(kind)
                part = "start verb" if kind == "verb" else "start seen" if self.wishes["noun"] in W.SEEN else "start thing"
                out.append(self.text(self.rng.choice(PARTS[part])))
        return " " + " ".join(out)

    def weave(self, kind):
        part = "weave verb" if kind == "verb" else "weave adj noun" if "adj" in self.wishes else "weave noun"
        return self.text(self.rng.choice(PARTS[part])) + " "

    def text(self, template):
        return spin.spin(template, self.rng, self.fill)

    def fill(self, slot):
        rng = self.rng
        if slot == "+":
            if self.weaves and (rng.random() < 0.75):
                return self.weave(self.weaves.pop())
            return ""
        if slot in ("he", "him", "his", "himself"):
            return self.main.pronouns[("he", "him", "his", "himself").index(slot)]
        if slot[:1] in self.cast and slot[1:] in ("", "i", "'s", "name", "he", "him", "his"):
            return self.character(self.cast[slot[0]], slot[1:])
        if slot in ("him2f", "him2e"):
            return self.cast[slot[-1]].pronouns[1]
        if slot in self.fixed:
            return self.fixed[slot]
        return self.other(slot)

    def character(self, who, form):
        if form in ("he", "him", "his"):
            return who.pronouns[("he", "him", "his").index(form)]
        if form == "name":
            return who.call
        first, who.known = not who.known, True
        ref = who.intro if first or form == "i" else who.ref
        return ref + ("'s" if form == "'s" else "")

    def other(self, slot):
        rng = self.rng
        simple = {"o": self.thing, "oo": f"{self.look} {self.thing}", "look": self.look, "a": "a", "place": self.place, "to": f"to the {self.place}",
                  "at": f"{self.preposition} the {self.place}", "e2": "Grandma"}
        if slot in simple:
            return simple[slot]
        if slot in ("oneday", "oneday2"):
            return self.text(rng.choice(PARTS["oneday"]))
        if slot == "a little creature":
            return rng.choice(PARTS["creature"]) + " "
        if slot == "feel-":
            return self.bad
        if slot == "feel+":
            return self.good
        if slot == "trait":
            return self.text(rng.choice(PARTS["trait"])) + " " if rng.random() < 0.8 else ""
        return self.wishes.get(slot, "")


def _wishes(rng):
    """Words to weave in, so that stories can be asked for by words that have little to do with the plot."""
    wishes = {}
    if rng.random() < 0.7:
        wishes["noun"] = rng.choice(W.SEEN if rng.random() < 0.6 else W.THINGS)
        if rng.random() < 0.5:
            wishes["adj"] = rng.choice(W.LOOKS + W.COLORS)
    if rng.random() < 0.6:
        wishes["verb"] = rng.choice(W.VERBS)
    if rng.random() < 0.3:
        wishes["feel"] = rng.choice(W.GOOD + W.BAD)
    if rng.random() < 0.15:
        wishes["dayadj"] = rng.choice(W.DAYS)
    return wishes


def story(rng):
    if rng.random() < 0.07:
        return fixed_story(rng)
    plot = rng.choice(PLOTS)
    scene = Scene(rng, plot)
    theme = rng.choice(plot["themes"])
    opening = rng.choice(PARTS["open"])
    paragraphs = [scene.text(opening) + scene.start_weaves()] + [scene.text(p + " ") for p in plot["body"]]
    for kind in scene.weaves:
        paragraphs[1] += scene.weave(kind)
    if rng.random() < 0.2:
        paragraphs[0:2] = [paragraphs[0] + " " + paragraphs[1]]
    themed = rng.random() < 0.12
    if themed:
        paragraphs[-1] += rng.choice([f"And that is what {theme} means.", f"It was a day about {theme}.", f"{scene.main.ref} never forgot what {theme} means.",
                                      f"This is a story about {theme}."])
    elif rng.random() < 0.3:
        paragraphs[-1] += scene.text(rng.choice(PARTS["end"]))
    text = spin.tidy("\n\n".join(paragraphs))
    return {"text": text, "subjects": _subjects(rng, scene, text, theme if themed else None), "words": _words(rng, scene, text),
            "hero": scene.main.ref, "about": scene.main.kinds[-1], "mentions": [scene.main.noun, scene.thing]}


def _subjects(rng, scene, text, theme):
    main, out = scene.main, list(scene.main.kinds)
    if main.noun in ("girl", "boy"):
        out = [f"a {main.noun} named {main.name}", main.name]
    elif main.name:
        out.append(f"{main.name} the {main.noun}")
    if text.count(scene.thing) >= 2:
        out += [f"a {scene.thing}", f"a {scene.look} {scene.thing}" if f"{scene.look} {scene.thing}" in text else f"a {scene.thing}",
                f"{out[0]} and a {scene.thing}"]
        if main.noun in ("girl", "boy"):
            out += [f"a {main.noun} and a {scene.thing}"] + [f"a {scene.thing}"] * 2
    if f"the {scene.place}" in text:
        out += [f"the {scene.place}", f"{out[0]} {scene.preposition} the {scene.place}"]
    if scene.cast["f"].known and scene.cast["f"].noun not in ("girl", "boy") and text.count(scene.cast["f"].noun):
        out.append(f"{out[0]} and a {scene.cast['f'].noun}")
    if theme:
        out = [theme] * 3 + out
    return [spin.articles(s) for s in out]


def _words(rng, scene, text):
    """Content words that occur in the text as they stand."""
    import re
    present = set(re.findall(r"[a-z]+", text.lower()))
    wished = [w for w in scene.wishes.values() if w in present]
    spare = [w for w in (scene.thing, scene.main.noun, scene.look, scene.place, scene.fixed["v"], scene.fixed["day"], scene.bad, scene.good,
                         scene.fixed["trait0"]) if w in present and w not in wished]
    rng.shuffle(spare)
    return (wished + spare)[:3]


FIXED_SCENE = {"suits": "things", "where": "outdoors"}


def fixed_story(rng):
    """A story about a thing that stands still: a tree, the moon, a clock."""
    noun, home, love = rng.choice(W.FIXED)
    if rng.random() < 0.05:
        noun = W.invented(rng)
    adjective = rng.choice(["old", "big", "little", "beautiful", "lonely", "bright", "small", "kind"])
    scene = Scene(rng, FIXED_SCENE)
    c = child(rng)
    scene.main = scene.cast["h"] = c
    scene.cast["f"] = friend(rng, c)
    scene.cast["c"] = c
    scene.fixed.update({"x": noun, "xadj": adjective, "home": home, "love": love, "time": rng.choice(["day", "evening", "morning"])})
    base = scene.fill
    alias = {"che": "he", "chis": "his", "chim": "him"}

    def fill(slot):
        if slot in ("c", "ci"):
            return scene.character(c, slot[1:])
        return base(alias.get(slot, slot))
    scene.fill = fill
    body = rng.choice(FIXED_PLOTS)
    text = spin.tidy("\n\n".join(scene.text(p + " ") for p in body))
    scene.look, scene.thing = adjective, noun
    return {"text": text, "subjects": [spin.articles(s) for s in (f"a {noun}", f"a {adjective} {noun}", f"a {noun} and a {c.noun}")],
            "words": _words(rng, scene, text), "hero": f"the {noun}", "about": spin.articles(f"a {adjective} {noun}"), "mentions": [noun]}

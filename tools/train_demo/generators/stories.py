"""Short stories from the plots in data/plots.txt and data/fixed_plots.txt.

A story keeps its world straight: a character has one name, one set of pronouns and is introduced when first mentioned; the
thing the plot turns on stays the same thing. `story(rng, purpose)` returns a dict: text, subjects (phrases that it may be asked for by,
without article unless it has one), words (three content words that it surely contains), hero (reference), about (short phrase).
"""
import re

from . import spin, words as W


def _load(name):
    out = []
    for title, body in spin.sections(name, r"^= (.+)$()").items():
        fields = [f.strip() for f in title.split(";")] + ["", "things", "outdoors"][max(0, title.count(";")):]
        out.append({"themes": fields[1].split(", "), "suits": fields[2], "where": fields[3], "body": body})
    return out


PLOTS, ANY_PLOTS, FOUND_PLOTS, FIXED_PLOTS = (_load(n) for n in ("plots.txt", "any_plots.txt", "found_plots.txt", "fixed_plots.txt"))
PARTS = spin.sections("story_parts.txt", r"^= (.+)$()")

HE, SHE, IT = ("he", "him", "his", "himself"), ("she", "her", "her", "herself"), ("it", "it", "its", "itself")


class Character:
    """Somebody in a story. ref: how the text calls him; intro: with the article, for the first time; call: to his face."""

    def __init__(self, noun, name, pronouns, adjective, home="", love="", species=""):
        self.noun, self.name, self.pronouns, self.home, self.adjective = noun, name, pronouns, home, adjective
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


def child(rng, odd=False):
    girl = rng.random() < 0.5
    pronouns = SHE if girl else HE
    name = rng.choice(W.GIRLS if girl else W.BOYS)
    if odd and rng.random() < 0.25:
        name = W.invented_name(rng)
    own = lambda text: spin.spin(text, rng, lambda _: pronouns[2])
    adjective = rng.choice(["little", "little", "young", "small", "", rng.choice(W.TRAITS), rng.choice(W.TRAITS) + " little"])
    return Character("girl" if girl else "boy", name, pronouns, adjective, own(rng.choice(CHILD_HOMES)), own(rng.choice(CHILD_LOVES)))


ANYWHERE = ["in a quiet valley", "near a small village", "at the edge of the forest", "on a green hill", "in a far land", "not far from here", "by a blue lake",
            "in a place that nobody knew", "near the sea", "in a small town"]
FEMALE = {"queen", "princess", "fairy", "witch", "mermaid", "hen", "cow", "doll", "ladybug"}
MALE = {"king", "prince", "wizard", "snowman", "rooster", "fisherman", "postman", "knight"}


def being(rng, row, named=0.6, odd=False):
    """An animal, person, fantasy creature or machine from its row of the word lists; an odd one may have a word or name that nobody knows."""
    noun, home, love = row[0], row[1], row[3] if len(row) == 5 else row[-1]
    if odd and rng.random() < 0.2:
        noun, home = W.invented(rng), rng.choice(ANYWHERE)
    name = ""
    pronouns = SHE if noun in FEMALE else HE if noun in MALE else rng.choice([HE, SHE])
    person = row in W.PEOPLE
    if rng.random() < named:
        name = rng.choice((W.GIRLS if pronouns is SHE else W.BOYS) if person or rng.random() < 0.25 else W.PETNAMES)
        if odd and rng.random() < 0.25:
            name = W.invented_name(rng)
    elif not person and noun not in FEMALE | MALE and rng.random() < 0.3:
        pronouns = IT
    adjectives = ["", rng.choice(W.TRAITS), rng.choice(W.SIZES), "little"]
    if not person:
        adjectives += [rng.choice(W.COLORS), "little " + rng.choice(["brown", "white", "gray", "black", "red"])]
    return Character(noun, name, pronouns, rng.choice(adjectives), home, love)


def hero(rng, odd):
    kind = rng.choices(["child", "animal", "person", "fantasy", "machine"], [30, 36, 12, 13, 9])[0]
    if kind == "child":
        return child(rng, odd)
    return being(rng, rng.choice({"animal": W.ANIMALS, "person": W.PEOPLE, "fantasy": W.FANTASY, "machine": W.MACHINES}[kind]), odd=odd)


STATIC = set("bridge fence gate tower windmill well path bench bush hill pond stream rock tree flower fountain barn shed cottage castle garden market river lake cave orchard haystack statue".split())
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
GLAD = ["happy", "happy", "very happy", "glad", "cheerful", "proud and happy", "full of joy"]
SKILLS = ["swim", "dance", "sing", "draw", "paint", "climb", "read", "write", "whistle", "bake", "juggle", "skip", "fly a kite", "ride a bike", "sew", "knit",
          "play the flute", "play the drum", "cook", "jump rope", "skate", "dive", "build a fire", "tie knots", "count", "race", "spin", "play chess"]


XADJ = ["big", "little", "old", "strange", "wonderful", "beautiful", "famous", "great", "funny", "small", "red", "blue", "golden", "white"]


class Scene:
    """The values of the slots while one story is written."""

    def __init__(self, rng, plot, purpose):
        odd = purpose == "subject"  # unknown words teach copying from the prompt; elsewhere they would only be strange
        self.rng, self.main = rng, hero(rng, odd)
        self.wishes = wishes = _wishes(rng, purpose)
        self.cast = {"h": self.main, "f": friend(rng, self.main), "e": elder(rng, self.main)}
        self.thing = rng.choice(W.SUITS[plot["suits"]])
        self.look = rng.choice(W.COLORS if rng.random() < 0.5 else W.LOOKS)
        self.weaves = [k for k in ("noun", "verb") if k in wishes]
        if plot["suits"] == "things" and wishes.get("noun") in W.THINGS and rng.random() < 0.6:
            self.thing, self.look = wishes["noun"], wishes.get("adj", self.look)
            self.weaves.remove("noun")
        elif odd and plot["suits"] == "things" and rng.random() < 0.1:
            self.thing = W.invented(rng)
        while self.thing == self.main.noun or "noun" in self.weaves and self.thing == wishes["noun"]:
            self.thing = rng.choice(W.THINGS)
        self.place, self.preposition = rng.choice(OUTDOORS if plot["where"] == "outdoors" else W.PLACES)
        self.fixed = {"food": rng.choice(W.FOODS), "love": self.main.love, "home": self.main.home, "day": rng.choice(W.DAYS),
                      "v": rng.choice(SKILLS), "v0": rng.choice(W.VERBS), "trait0": rng.choice(W.TRAITS),
                      "food1": rng.choice(["cake", "soup", "pie", "bread", "jam"]),
                      "seen": rng.choice(["butterfly", "rabbit", "bird", "cat", "squirrel", "frog", "dog", "balloon", "ball"]),
                      "heavy": rng.choice(["heavy", "very heavy", "hard work", "a long way"])}
        self.bad, self.good = rng.choice(SAD), rng.choice(GLAD)
        if wishes.get("feel") in W.GOOD:
            self.good = wishes["feel"]
        elif "feel" in wishes:
            self.bad = wishes["feel"]
        if "dayadj" in wishes:
            self.fixed["day"] = wishes["dayadj"]
        if "trait" in wishes:
            self.fixed["trait0"] = wishes["trait"]
        o1, o2 = rng.sample(["drum", "flute", "trumpet", "violin", "guitar", "piano", "whistle", "bell", "harp", "horn"], 2)
        self.fixed.update({"color": rng.choice(W.COLORS), "o1": o1, "o2": o2, "x": W.anything(rng, odd), "xadj": rng.choice(XADJ), "A": "A",
                           "species": self.main.noun, "adjective": rng.choice(["old", "little", "young", "tired"] + W.TRAITS), "adjective0": rng.choice(W.TRAITS)})
        self.fixed["color3"] = rng.choice(["blue", "green", "purple", "brown", "orange"])
        while self.fixed["x"] in (self.main.noun, self.cast["f"].noun):
            self.fixed["x"] = W.anything(rng, odd)
        while self.fixed["v0"] == wishes.get("verb"):
            self.fixed["v0"] = rng.choice(W.VERBS)
        rng.shuffle(self.weaves)

    def start_weaves(self):
        """Sentences of the opening that carry some of the wished words."""
        out = []
        for kind in list(self.weaves):
            if self.rng.random() < 0.6:
                self.weaves.remove(kind)
                part = "start verb" if kind == "verb" else "start thing" if self.wishes["noun"] in W.THINGS else "start seen" if self.wishes["noun"] in STATIC else "weave noun"
                out.append(self.text(self.rng.choice(PARTS[part])))
        return " " + " ".join(out)

    def trait(self):
        """A sentence about the hero's nature; never a second, other nature for one who has been introduced by it."""
        lines = PARTS["trait"]
        if "trait" in self.wishes:
            lines = [l for l in lines if "{trait0}" in l]
        elif self.main.adjective.split(" ")[0] in W.TRAITS:
            lines = [l for l in lines if "{trait0}" not in l]
        return self.text(self.rng.choice(lines)) + " " if "trait" in self.wishes or self.rng.random() < 0.8 else ""

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
        if first and form == "'s" and who is not self.main:
            ref = f"{self.main.pronouns[2]} friend {who.name}".strip() if who.name else f"{self.main.pronouns[2]} friend the {who.noun}"
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
            return self.trait()
        return self.wishes.get(slot, "")


_QUESTION = re.compile(r"(?:And |But |Oh, )?(?:What(?! an? | fun)|Who|Whose|Where|Why|How (?!nice|lovely|exciting)|Which|Is |Are |Do you|Do I|Does|Can |May I|May we|Will you|"
                       r"Have you|Did |Should|Was it|Shall|Could|Would you)")
_QUOTE = re.compile(r'"([^"\n]+)([,.?!])"( asked)?')


def punctuate(text):
    """The end of a quote after what it says: alternatives of one template may be questions or not."""
    def fix(m):
        said, mark, asked = m.group(1), m.group(2), m.group(3) or ""
        last = re.split(r"[.!?] ", said)[-1]
        if _QUESTION.match(last):
            mark = "?"
        elif mark == "?" and not re.search(r", (?:what|who|why|where|little one|or)\b", last):
            follows = text[m.end():m.end() + 2]
            mark, asked = ("," if asked or follows[1:].islower() else "."), " said" if asked else ""
        return f'"{said}{mark}"{asked}'
    return _QUOTE.sub(fix, text)


def _wishes(rng, purpose):
    """Words to work in. Stories that will be asked for by words carry three or more; others stay free of them."""
    wishes = {}
    if purpose != "words" and rng.random() < 0.8:
        return wishes
    if rng.random() < 0.93:
        wishes["noun"] = rng.choice(rng.choice([W.SEEN, W.THINGS, W.THINGS]))
        if rng.random() < 0.04:
            wishes["noun"] = W.anything(rng, True)
    if rng.random() < 0.9:
        wishes["verb"] = rng.choice(W.VERBS)
    kind = rng.choice(["adj", "adj", "adj", "feel", "feel", "trait", "trait", "dayadj"])
    wishes[kind] = rng.choice({"adj": W.LOOKS + W.COLORS, "feel": W.GOOD + W.BAD, "trait": W.TRAITS, "dayadj": W.DAYS}[kind])
    if "noun" not in wishes:
        wishes.pop("adj", None)
    return wishes


def story(rng, purpose="any", limit=660):
    """A story of at most `limit` characters. purpose: how it will be asked for: by subject, by words, by its beginning (more)."""
    while True:
        s = _story(rng, purpose)
        if len(s["text"]) <= limit:
            return s


def _story(rng, purpose):
    kind = rng.choices(["plot", "any", "found", "fixed"], [66, 20, 6, 8] if purpose != "subject" else [52, 34, 4, 10])[0]
    if kind == "fixed":
        return fixed_story(rng, purpose)
    plot = rng.choice({"plot": PLOTS, "any": ANY_PLOTS, "found": FOUND_PLOTS}[kind])
    scene = Scene(rng, plot, purpose)
    if kind == "any":
        scene.thing = scene.fixed["x"] if plot["suits"] == "things" else scene.thing
    theme = rng.choice(plot["themes"])
    opening = rng.choice(PARTS["open"])
    if kind == "found":
        opening = rng.choice(PARTS["pair"])
    elif purpose == "more" and rng.random() < 0.6 and "trait" not in scene.wishes:
        opening = rng.choice(PARTS["bare"])
    paragraphs = [scene.text(opening) + scene.start_weaves()] + [scene.text(p + " ") for p in plot["body"]]
    for weave in scene.weaves:
        paragraphs[1] += scene.weave(weave)
    if rng.random() < 0.25 or len(paragraphs[0]) < 60:
        paragraphs[0:2] = [paragraphs[0] + " " + paragraphs[1]]
    themed = rng.random() < 0.12
    if themed:
        paragraphs[-1] += rng.choice([f"And that is what {theme} means.", f"It was a day about {theme}.", f"{scene.main.ref} never forgot what {theme} means.",
                                      f"This is a story about {theme}."])
    elif rng.random() < 0.3:
        paragraphs[-1] += scene.text(rng.choice(PARTS["end"]))
    text = punctuate(spin.tidy("\n\n".join(paragraphs)))
    return {"text": text, "subjects": _subjects(rng, scene, text, theme if themed else None), "words": _words(rng, scene, text),
            "hero": scene.main.ref, "about": scene.main.kinds[-1]}


def _subjects(rng, scene, text, theme):
    main, out = scene.main, list(scene.main.kinds)
    if main.noun in ("girl", "boy"):
        out = [f"a {main.noun} named {main.name}", main.name]
    elif main.name:
        out.append(f"{main.name} the {main.noun}")
    x = scene.fixed["x"]
    if text.count(x) >= 2 and x != main.noun:
        adjective = scene.fixed["xadj"]
        out = [f"a {x}"] * 4 + [f"the {x}", f"{out[0]} and a {x}"] + ([f"a {adjective} {x}"] if f"{adjective} {x}" in text else [])
        return [spin.articles(s) for s in out]
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
    present = set(re.findall(r"[a-z]+", text.lower()))
    wished = [w for w in scene.wishes.values() if w in present]
    spare = [w for w in (scene.thing, scene.main.noun, scene.look, scene.place, scene.fixed["v"], scene.fixed["day"], scene.bad, scene.good,
                         scene.fixed["trait0"]) if w in present and w not in wished]
    rng.shuffle(spare)
    return (wished + spare)[:3]


FIXED_SCENE = {"suits": "things", "where": "outdoors"}


def fixed_story(rng, purpose):
    """A story about a thing that stands still: a tree, the moon, a clock, or any noun at all."""
    noun, home, love = rng.choice(W.FIXED)
    if rng.random() < 0.5:
        noun, home = W.anything(rng, purpose == "subject"), rng.choice(ANYWHERE)
        love = rng.choice(["listen to the wind", "watch the children", "look at the sky", "feel the warm sun", "hear the birds", "dream of far places"])
    adjective = rng.choice(["old", "big", "little", "beautiful", "lonely", "bright", "small", "kind"])
    scene = Scene(rng, FIXED_SCENE, purpose)
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
    body = rng.choice(FIXED_PLOTS)["body"]
    text = punctuate(spin.tidy("\n\n".join(scene.text(p + " ") for p in body)))
    scene.look, scene.thing = adjective, noun
    return {"text": text, "subjects": [spin.articles(s) for s in (f"a {noun}", f"a {noun}", f"a {adjective} {noun}", f"a {noun} and a {c.noun}")],
            "words": _words(rng, scene, text), "hero": f"the {noun}", "about": spin.articles(f"a {adjective} {noun}")}

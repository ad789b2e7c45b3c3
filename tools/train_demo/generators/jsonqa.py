"""Requests for JSON and their answers: objects from sentences, lists, facts and sums."""
import json

from . import facts, spin, words as W

ASK = ["Answer as JSON.", "Answer in JSON.", "Give the answer as JSON.", "Write it as JSON.", "Use JSON.", "Reply with JSON only.", "As JSON, please."]
LISTS = {"colors": W.COLORS, "animals": [a[0] for a in W.ANIMALS], "toys": W.SUITS["toys"], "girls' names": W.GIRLS, "boys' names": W.BOYS,
         "foods": ["bread", "cake", "soup", "apples", "cheese", "honey", "rice", "pears", "noodles", "jam", "corn", "grapes", "plums", "toast"],
         "places": [p[0] for p in W.PLACES], "jobs": [p[0] for p in W.PEOPLE], "feelings": W.GOOD + W.BAD,
         "days": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]}
CITIES = [(k, v) for d, k, v, _, _ in facts.FACTS if d == "capitals"]


def _person(rng):
    girl = rng.random() < 0.5
    return rng.choice(W.GIRLS if girl else W.BOYS), "She" if girl else "He", "girl" if girl else "boy"


def _row(rng):
    """A little record: [(key, value, clause)]; the clauses make a sentence that holds the same facts."""
    name, pronoun, kind = _person(rng)
    age, pet, color, food, job = rng.randint(2, 90), rng.choice(W.ANIMALS)[0], rng.choice(W.COLORS), rng.choice(LISTS["foods"]), rng.choice(W.PEOPLE)[0]
    city, thing = rng.choice(CITIES)[1], rng.choice(W.THINGS)
    rows = [("name", name, None), ("age", age, f"is {age} years old"), ("city", city, f"lives in {city}"), ("pet", pet, spin.articles(f"has a {pet}")),
            ("color", color, f"likes the color {color}"), ("food", food, f"likes {food}"), ("job", job, spin.articles(f"is a {job}")),
            ("toy", thing, spin.articles(f"owns a {thing}")), ("happy", bool(age % 2), "is happy" if age % 2 else "is not happy")]
    chosen = [rows[0]] + rng.sample(rows[1:], rng.randint(1, 3))
    return chosen, pronoun


def extract(rng):
    rows, pronoun = _row(rng)
    name = rows[0][1]
    clauses = [c for _, _, c in rows[1:]]
    text = f"{name} {clauses[0]}" + (f" and {clauses[1]}" if len(clauses) > 1 else "") + "."
    if len(clauses) > 2:
        text += f" {pronoun} {clauses[2]}."
    asked = rows[:]
    if rng.random() < 0.4:
        rng.shuffle(asked)
    keys = ", ".join(k for k, _, _ in asked)
    ask = rng.choice([f"Give me this as JSON with the keys {keys}: {text}", f"{text} Write this as JSON with the keys {keys}.", f"Make a JSON object with {keys} from this: {text}",
                      f"Turn this into JSON with the keys {keys}: {text}"])
    return ask, json.dumps({k: v for k, v, _ in asked})


def free_object(rng):
    rows, _ = _row(rng)
    keys = [k for k, _, _ in rows]
    listed = ", ".join(keys[:-1]) + f" and {keys[-1]}" if len(keys) > 1 else keys[0]
    ask = rng.choice([f"Write a JSON object about a person with {listed}.", f"Give me a JSON object with the keys {listed}.", f"Make a JSON object with {listed}.",
                      f"Invent a person and answer as JSON with the keys {listed}.", f"I need JSON with the keys {listed}."])
    return ask, json.dumps({k: v for k, v, _ in rows})


def listing(rng):
    what = rng.choice(list(LISTS))
    n = rng.randint(2, 5)
    ask = rng.choice([f"List {facts.NUMBERS[n]} {what} as JSON.", f"Give me a JSON list of {facts.NUMBERS[n]} {what}.", f"Name {n} {what}. {rng.choice(ASK)}",
                      f"Write {facts.NUMBERS[n]} {what} as a JSON array.", f"Give me {n} {what} as JSON."])
    return ask, json.dumps(rng.sample(LISTS[what], n))


def fact(rng):
    if rng.random() < 0.4:
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        if facts.sum_held_out(a, "+", b):
            a, b = 1, 2
        return f"What is {a} + {b}? {rng.choice(ASK)}", json.dumps({"a": a, "b": b, "sum": a + b})
    domain = rng.choice(["capitals", "sounds", "young", "opposites", "plurals"])
    _, key, value, questions, _ = rng.choice([f for f in facts.FACTS if f[0] == domain])
    names = {"capitals": ("country", "capital"), "sounds": ("animal", "sound"), "young": ("animal", "young"), "opposites": ("word", "opposite"),
             "plurals": ("word", "plural")}[domain]
    return spin.articles(questions[0].replace("{k}", key)) + " " + rng.choice(ASK), json.dumps(dict(zip(names, (key, value))))


def request(rng):
    return rng.choices([extract, free_object, listing, fact], [4, 3, 3, 3])[0](rng)


def held_out_requests(rng, n):
    """Requests that training is very unlikely to have seen word for word: random records, lists and facts."""
    return [request(rng) for _ in range(n)]

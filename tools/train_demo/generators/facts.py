"""Questions and answers: the facts of data/facts.txt, sums, number sense, and small talk of data/talk.txt.

`split(key)` keeps one in twelve (fact, phrasing) combinations, and one in twenty pairs of numbers, from training.
"""
import hashlib

from . import spin

WRAPS = ["{q}", "{q}", "{q}", "Please tell me: {q}", "I have a question. {q}", "Quick question: {q}", "{q} Please answer.", "Can you help me? {q}"]
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty".split()


def digest(key):
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")


def kept_back(key, one_in):
    return digest(key) % one_in == 0


def _load_facts():
    out = []
    for domain, lines in spin.sections("facts.txt", r"^\[(.+)\]$()").items():
        questions = [l[3:] for l in lines if l.startswith("Q: ")]
        answer = next(l[3:] for l in lines if l.startswith("A: "))
        for line in lines:
            if not line.startswith(("Q: ", "A: ")):
                key, value = line.split(" | ")
                out.append((domain, key, value, questions, answer))
    return out


FACTS = _load_facts()


def _fill(text, key, value):
    capital = key[0].upper() + key[1:]
    return spin.articles(text.replace("{k}", key).replace("{K}", capital).replace("{v}", value))


def all_facts():
    """Every (domain, question, answer, value, held_out) over all facts, phrasings and wraps."""
    for domain, key, value, questions, answer in FACTS:
        for i, q in enumerate(questions):
            for j, wrap in enumerate(dict.fromkeys(WRAPS)):
                question = wrap.replace("{q}", _fill(q, key, value))
                yield domain, question, _fill(answer, key, value), value, kept_back(f"{domain}|{key}|{i}|{j}", 12)


def fact(rng):
    while True:
        domain, key, value, questions, answer = rng.choice(FACTS)
        i, j = rng.randrange(len(questions)), rng.randrange(len(WRAPS))
        j = max(j, 2) - 2  # the first three wraps are the same
        if not kept_back(f"{domain}|{key}|{i}|{j}", 12):
            wrap = list(dict.fromkeys(WRAPS))[j]
            return wrap.replace("{q}", _fill(questions[i], key, value)), _fill(answer, key, value)


SUM_FORMS = {
    "+": ["What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b} = ?", "How much is {a} + {b}?", "How much is {a} plus {b}?", "Add {a} and {b}.", "{a}+{b}",
          "What do you get if you add {a} and {b}?", "Can you add {a} and {b}?"],
    "-": ["What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b} = ?", "How much is {a} - {b}?", "How much is {a} minus {b}?", "Take {b} from {a}.", "{a}-{b}",
          "Subtract {b} from {a}."],
    "x": ["What is {a} times {b}?", "What is {a} x {b}?", "{a} x {b} = ?", "How much is {a} times {b}?", "Multiply {a} by {b}.", "Multiply {a} and {b}."],
}


def sum_answer(a, op, b):
    return f"{a} {op} {b} = {dict(zip('+-x', (a + b, a - b, a * b)))[op]}."


def sum_held_out(a, op, b):
    return kept_back(f"{a}{op}{b}", 20)


def all_sums():
    for a in range(21):
        for b in range(21):
            yield a, "+", b
            if b <= a:
                yield a, "-", b
            if 1 <= a <= 10 and 1 <= b <= 10:
                yield a, "x", b


def sum_(rng):
    while True:
        op = rng.choice("+++--x")
        a, b = (rng.randint(1, 10), rng.randint(1, 10)) if op == "x" else (rng.randint(0, 20), rng.randint(0, 20))
        if op == "-" and b > a:
            a, b = b, a
        if not sum_held_out(a, op, b):
            return rng.choice(SUM_FORMS[op]).format(a=a, b=b), sum_answer(a, op, b)


def numbers(rng):
    """Order of numbers, words for numbers, comparisons."""
    a, b = rng.sample(range(0, 31), 2)
    n = rng.randint(0, 20)
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice([f"Which number is bigger, {a} or {b}?", f"Which is bigger, {a} or {b}?"]), f"{max(a, b)} is bigger than {min(a, b)}."
    if kind == 1:
        return f"Which number is smaller, {a} or {b}?", f"{min(a, b)} is smaller than {max(a, b)}."
    if kind == 2:
        return rng.choice([f"What number comes after {n}?", f"Which number comes after {n}?"]), f"After {n} comes {n + 1}."
    if kind == 3:
        return rng.choice([f"What number comes before {n + 1}?", f"Which number comes before {n + 1}?"]), f"Before {n + 1} comes {n}."
    if kind == 4:
        return f"Write the number {n} as a word.", f"The number {n} is written {NUMBERS[n]}."
    return f"Write {NUMBERS[n]} as a number.", f"The word {NUMBERS[n]} means {n}."


def _load_talk():
    blocks, questions, answers = [], [], []
    for line in spin.lines("talk.txt") + [""]:
        if line.startswith("Q: "):
            questions.append(line[3:])
        elif line.startswith("A: "):
            answers.append(line[3:])
        elif questions:
            blocks.append((questions, answers))
            questions, answers = [], []
    return blocks


TALK = _load_talk()


def talk(rng):
    questions, answers = rng.choice(TALK)
    return spin.spin(rng.choice(questions), rng), spin.spin(rng.choice(answers), rng)

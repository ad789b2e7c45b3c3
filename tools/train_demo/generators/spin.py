"""The small template language of the data files, and the readers of those files.

    [a|b|c]   one of the alternatives, which may nest and may be empty
    {slot}    replaced by fill(slot), a function that the caller gives

`tidy` repairs what templates cannot know: "a" before a vowel, capitals at the start of sentences, doubled spaces.
"""
import functools
import pathlib
import re

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"


@functools.lru_cache(maxsize=None)
def parse(text):
    """Template text -> tuple of str | ("slot", name) | ("pick", (template, ...))."""
    node, end = _sequence(text, 0, "")
    if end != len(text):
        raise ValueError(f"stray bracket at {end} in {text!r}")
    return node


def _sequence(text, i, stops):
    parts, start = [], i
    while i < len(text) and text[i] not in stops:
        if text[i] == "[":
            parts.append(text[start:i])
            choices = []
            while text[i] != "]":
                choice, i = _sequence(text, i + 1, "|]")
                choices.append(choice)
            parts.append(("pick", tuple(choices)))
            start = i + 1
        elif text[i] == "{":
            parts.append(text[start:i])
            end = text.index("}", i)
            parts.append(("slot", text[i + 1:end]))
            i, start = end, end + 1
        i += 1
    parts.append(text[start:i])
    return tuple(p for p in parts if p), i


def render(node, rng, fill):
    out = []
    for part in node:
        if isinstance(part, str):
            out.append(part)
        elif part[0] == "slot":
            out.append(fill(part[1]))
        else:
            out.append(render(rng.choice(part[1]), rng, fill))
    return "".join(out)


def spin(text, rng, fill=None):
    return render(parse(text), rng, fill or (lambda name: "{" + name + "}"))


_ARTICLE = re.compile(r"\b([Aa]) (?=(?:[aeioAEIO]|u(?!ni|se|ke)|hour|honest)[a-z])(?!one\b|once\b)")
_START = re.compile(r"(^|[.!?] |\n|[.]\" |\s\"|^\")([a-z])")


def articles(text):
    return _ARTICLE.sub(lambda m: m.group(1) + "n ", text)


def tidy(text):
    text = re.sub(r" +", " ", text)
    text = re.sub(r" ?\n ?", "\n", text).strip()
    return articles(_START.sub(lambda m: m.group(1) + m.group(2).upper(), text))


def lines(name):
    """Lines of a data file without comments; empty lines are kept as ''."""
    return [l.rstrip() for l in (DATA / name).read_text().split("\n") if not l.startswith("#")]


def sections(name, pattern=r"^\[(.+)\]$|^= (.+)$"):
    """A data file of titled blocks -> {title: [line, ...]} without empty lines."""
    out, current = {}, None
    for line in lines(name):
        m = re.match(pattern, line)
        if m:
            current = out.setdefault(m.group(1) or m.group(2), [])
        elif line and current is not None:
            current.append(line)
    return out

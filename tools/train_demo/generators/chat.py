"""Conversations for training: pairs of prompt and answer, put together to one to four turns, some with a system prompt.

A conversation is a list of (role, text). Prompts never ask for a held-out subject.
"""
from . import facts, jsonqa, stories, tales, words as W

ASK_STORY = ["Tell me a story about {s}.", "Tell me a story about {s}.", "Tell me a story about {s}.", "Write a story about {s}.", "Write a short story about {s}.",
             "Can you tell me a story about {s}?", "Please tell me a story about {s}.", "Tell me a short story about {s}.", "I want to hear a story about {s}.",
             "Could you write a story about {s}?", "Make up a story about {s}.", "Please write a little story about {s}.", "A story about {s}, please.",
             "Do you know a story about {s}?", "Tell a story about {s}.", "I would like a story about {s}.", "Write me a story about {s}.", "Give me a story about {s}.",
             "Tell me a bedtime story about {s}.", "story about {s}", "tell me about {s}"]
ASK_ANY = ["Tell me a story.", "Tell me a story!", "Write a story.", "Can you tell me a story?", "Please tell me a story.", "Tell me a short story.", "I want a story.",
           "Tell me something nice.", "Write a short story for children.", "Tell me a bedtime story.", "Another story, please.", "Tell me another story."]
ASK_WORDS = ["Write a story with the words {w}.", "Write a story with the words {w}.", "Tell me a story with the words {w}.", "Use the words {w} in a story.",
             "Write a short story that uses the words {w}.", "Make a story with these words: {w}.", "Tell me a story that has the words {w}.",
             "Can you write a story with the words {w}?", "Please tell a story with {w}.", "Write a story. Use these words: {w}."]
ASK_MORE = ["Continue this: {b}", "Continue this story: {b}", "Please continue: {b}", "Finish this story: {b}", "Go on with this story: {b}", "How does this go on? {b}",
            "What happens next? {b}"]
SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant.", "You are a friendly story teller.", "You are nano-vllm's demo model.", "Answer briefly.",
           "You tell short stories for children.", "You are a kind assistant. Keep your answers short.", "You are a small language model."]


def _join(words, rng):
    return ", ".join(words) if rng.random() < 0.4 else ", ".join(words[:-1]) + rng.choice([" and ", ", and "]) + words[-1]


def _casual(prompt, rng):
    """Some people write without capitals and full stops."""
    if rng.random() < 0.08:
        prompt = prompt[0].lower() + prompt[1:].rstrip(".")
    return prompt


def _beginning(text, rng):
    """Cut a story after one to three sentences: (beginning, rest), or None when it is too short."""
    ends = [i + 1 for i, c in enumerate(text[:-1]) if c in ".!?" and text[i + 1] in " \n"]
    if len(ends) < 5:
        return None
    cut = ends[rng.choice([0, 0, 1, 2])]
    return text[:cut], text[cut:].strip()


ASK_KINDS, ASK_SHARES = ("subject", "words", "more", "any"), (46, 34, 15, 5)


def ask_for(kind, text, subjects, words, rng):
    """(prompt, answer) for a story; falls back to a plain request when the story cannot be asked for in that way."""
    subjects = [s for s in subjects if not W.held_out(s)]
    if kind == "more":
        cut = _beginning(text, rng)
        if cut:
            b = cut[0].replace("\n\n", " ")
            return rng.choice(ASK_MORE).format(b=b), cut[1]
    if kind == "words" and len(words) >= 2:
        words = list(words)
        rng.shuffle(words)
        return _casual(rng.choice(ASK_WORDS).format(w=_join(words, rng)), rng), text
    if kind == "any" or not subjects:
        return _casual(rng.choice(ASK_ANY), rng), text
    return _casual(rng.choice(ASK_STORY).format(s=rng.choice(subjects)), rng), text


def generated(rng):
    kind = rng.choices(ASK_KINDS, ASK_SHARES)[0]
    s = stories.story(rng, kind)
    while kind == "subject" and all(W.held_out(p) for p in s["subjects"]):
        s = stories.story(rng, kind)
    pair = ask_for(kind, s["text"], s["subjects"], s["words"], rng)
    turns = [("user", pair[0]), ("assistant", pair[1])]
    if rng.random() < 0.05:
        turns += [("user", rng.choice(["Who was the story about?", "Who was in that story?", "Who is the hero of the story?"])),
                  ("assistant", f"The story was about {s['about']}.")]
    return turns


LONG = 720  # characters: longer tales are only given when a long story is asked for


def tale(rng, text, names, kinds):
    text = tales.vary(text, rng, names)
    subjects, words = tales.requests(text, rng, kinds)
    prompt, answer = ask_for(rng.choices(ASK_KINDS, ASK_SHARES)[0], text, subjects, words, rng)
    if len(answer) > LONG:
        free = [s for s in subjects if not W.held_out(s)]
        prompt = rng.choice(["Tell me a long story about {s}.", "Write a long story about {s}.", "I want a long story about {s}."]).format(s=rng.choice(free)) \
            if free else "Tell me a long story."
        answer = text
    return [("user", prompt), ("assistant", answer)]


def question(rng):
    kind = rng.choices([facts.fact, facts.sum_, facts.numbers, facts.talk, jsonqa.request], [34, 16, 5, 20, 25])[0]
    q, a = kind(rng)
    if kind is facts.fact or kind is facts.talk:
        if rng.random() < 0.06:
            q = q[0].lower() + q[1:].rstrip("?.!")
    return [("user", q), ("assistant", a)]


def several(rng, first, maker):
    """Turns of a conversation: `first`, and sometimes more from maker(), perhaps with a system prompt in front."""
    turns = list(first)
    while rng.random() < 0.35 and len(turns) < 8:
        turns += maker(rng)
    if rng.random() < 0.15:
        turns = [("system", rng.choice(SYSTEMS))] + turns
    return turns

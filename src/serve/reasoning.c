/* <think> ... </think>; see reasoning.h. */
#define _GNU_SOURCE
#include "serve/reasoning.h"

#include <string.h>

static const char open_tag[] = "<think>", close_tag[] = "</think>";
enum { OPEN_LEN = sizeof open_tag - 1, CLOSE_LEN = sizeof close_tag - 1 };

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static size_t leading_space(const wire *w)
{
    size_t n = 0;
    while (n < w->len && is_space(w->data[n])) n++;
    return n;
}

reasoning_state reasoning_after_prompt(const char *prompt, size_t len)
{
    while (len && is_space(prompt[len - 1])) len--;
    if (len >= OPEN_LEN && memcmp(prompt + len - OPEN_LEN, open_tag, OPEN_LEN) == 0) return REASONING_OPENED;
    if (len >= CLOSE_LEN && memcmp(prompt + len - CLOSE_LEN, close_tag, CLOSE_LEN) == 0)
        return REASONING_NONE;
    return REASONING_AT_START;
}

/* Is it <think>, could it still be, or is it something else? */
static bool try_open(reasoning *r)
{
    size_t skip = leading_space(&r->held), rest = r->held.len - skip;
    if (rest < OPEN_LEN && memcmp(open_tag, r->held.data + skip, rest) == 0) return false;
    if (rest >= OPEN_LEN && memcmp(open_tag, r->held.data + skip, OPEN_LEN) == 0) {
        wire_consume(&r->held, skip + OPEN_LEN);
        r->state = REASONING_OPENED;
    } else {
        r->state = REASONING_NONE;
    }
    return true;
}

/* How many bytes at the end of the held text must wait: a part of </think>, and white space before it. */
static size_t undecided(const wire *w)
{
    size_t part = w->len < CLOSE_LEN - 1 ? w->len : CLOSE_LEN - 1;
    while (part && memcmp(w->data + w->len - part, close_tag, part) != 0) part--;
    size_t keep = part;
    while (keep < w->len && is_space(w->data[w->len - keep - 1])) keep++;
    return keep;
}

/* True when the tag was met. */
static bool pass_thought(reasoning *r, wire *thought)
{
    const char *tag = memmem(r->held.data, r->held.len, close_tag, CLOSE_LEN);
    size_t give = tag ? (size_t)(tag - r->held.data) : r->held.len - undecided(&r->held);
    size_t text = give;
    while (tag && text && is_space(r->held.data[text - 1])) text--;
    wire_bytes(thought, r->held.data, text);
    wire_consume(&r->held, tag ? give + CLOSE_LEN : give);
    if (tag) r->state = REASONING_CLOSED;
    return tag != NULL;
}

/* One move; false when nothing more can be decided now. */
static bool advance(reasoning *r, wire *thought, wire *content)
{
    if (r->held.len == 0) return false;
    switch (r->state) {
    case REASONING_AT_START: return try_open(r);
    case REASONING_OPENED:
    case REASONING_CLOSED:
        wire_consume(&r->held, leading_space(&r->held));
        if (r->held.len == 0) return false;
        r->state = r->state == REASONING_OPENED ? REASONING_INSIDE : REASONING_NONE;
        return true;
    case REASONING_INSIDE: return pass_thought(r, thought);
    case REASONING_NONE:
        wire_append(content, &r->held);
        wire_clear(&r->held);
        return false;
    }
    return false;
}

void reasoning_push(reasoning *r, const char *text, size_t len, wire *thought, wire *content)
{
    wire_bytes(&r->held, text, len);
    while (advance(r, thought, content)) {
    }
    if (r->held.failed) content->failed = true;
}

void reasoning_finish(reasoning *r, wire *thought, wire *content)
{
    if (r->state == REASONING_AT_START) wire_append(content, &r->held);
    if (r->state == REASONING_INSIDE) wire_append(thought, &r->held);
    wire_clear(&r->held);
}

void reasoning_free(reasoning *r)
{
    wire_free(&r->held);
}

/* Any bytes as the body of a request to each endpoint; and any bytes on their way out: what the JSON writer makes is
 * JSON on one line, as a server-sent event needs it, and reasoning is split alike however the text is cut into pieces. */
#include "serve/openai_in.h"
#include "serve/reasoning.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

static void read_requests(const char *body, size_t len)
{
    static const nvllm_request defaults = {.top_p = 1, .repetition_penalty = 1, .logprobs = -1};
    api_request r;
    api_error err = {0};
    wire w = {0};
    bool (*const readers[])(api_request *, const char *, size_t, const nvllm_request *,
                            api_error *) = {openai_read_chat, openai_read_completion};
    for (int i = 0; i < 2; i++) {
        bool ok = readers[i](&r, body, len, &defaults, &err);
        check(ok || (err.status >= 400 && err.message[0]));
        check(!ok || (r.n >= 1 && r.n <= API_MOST_CHOICES && (r.messages || r.n_prompts)));
        if (!ok) {
            api_error_write(&w, &err);
            json_t *parsed = json_loadb(w.data, w.len, 0, NULL);
            check(parsed != NULL);
            json_decref(parsed);
            wire_clear(&w);
        }
        api_request_free(&r);
    }
    wire_free(&w);
}

static void write_text(const char *text, size_t len)
{
    wire json = {0};
    wire_json_string(&json, text, len);
    json_t *parsed = json_loadb(json.data, json.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    check(parsed != NULL);
    json_decref(parsed);
    check(!memchr(json.data, '\r', json.len) && !memchr(json.data, '\n', json.len));
    wire_free(&json);
}

static void split(const char *text, size_t len, size_t piece, reasoning_state state, wire *thought,
                  wire *content)
{
    reasoning r = {.state = state};
    for (size_t i = 0; i < len; i += piece)
        reasoning_push(&r, text + i, len - i < piece ? len - i : piece, thought, content);
    reasoning_finish(&r, thought, content);
    reasoning_free(&r);
}

static bool same(const wire *a, const wire *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static void split_reasoning(const char *text, size_t len)
{
    static const reasoning_state states[] = {REASONING_AT_START, REASONING_OPENED, REASONING_NONE};
    for (int i = 0; i < 3; i++) {
        wire thought[2] = {{0}}, content[2] = {{0}};
        split(text, len, 1, states[i], &thought[0], &content[0]);
        split(text, len, len + 1, states[i], &thought[1], &content[1]);
        check(same(&thought[0], &thought[1]) && same(&content[0], &content[1]));
        for (int k = 0; k < 2; k++) {
            wire_free(&thought[k]);
            wire_free(&content[k]);
        }
    }
    reasoning_after_prompt(text, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    read_requests(text, size);
    write_text(text, size);
    split_reasoning(text, size);
    return 0;
}

/* nano-vllm run: one prompt, its answer streamed to stdout. */
#define _GNU_SOURCE
#include "cli.h"
#include "input.h"
#include "session.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char default_prompt[] = "Tell me a story about a little dog.";

/* Where the events of the answer go: text to stdout, or everything into `tokens` for --json. */
typedef struct {
    const nvllm_tokenizer *tokenizer; /* for the text of alternatives; NULL without --logprobs */
    json_t *tokens;                   /* --json: list of tokens; NULL: stream */
    char *text;                       /* --json: the answer so far */
    size_t len;
    char last; /* the last byte written */
} answer;

/* What the token stands for, as a JSON string; bytes that are half a character become U+FFFD. */
static json_t *token_text(const nvllm_tokenizer *tokenizer, int32_t id)
{
    char *text = NULL;
    size_t len = 0;
    json_t *string = NULL;
    if (!nvllm_token_bytes(tokenizer, id, &text, &len, NULL)) string = json_stringn(text, len);
    nvllm_free(text);
    text = NULL;
    if (!string && !nvllm_detokenize(tokenizer, &id, 1, 0, &text, &len, NULL))
        string = json_stringn(text, len);
    nvllm_free(text);
    return string ? string : json_null();
}

static json_t *token_json(const nvllm_tokenizer *tokenizer, int32_t id, float logprob)
{
    return json_pack("{s:i, s:o, s:f}", "id", (int)id, "text", token_text(tokenizer, id), "logprob",
                     (double)logprob);
}

static void add_json_token(answer *a, const nvllm_event *event)
{
    if (!a->tokenizer) {
        json_array_append_new(a->tokens, json_pack("{s:i}", "id", (int)event->token));
        return;
    }
    json_t *token = token_json(a->tokenizer, event->token, event->logprob), *top = json_array();
    for (size_t i = 0; i < event->n_top; i++)
        json_array_append_new(top, token_json(a->tokenizer, event->top[i].token, event->top[i].logprob));
    json_object_set_new(token, "top", top);
    json_array_append_new(a->tokens, token);
}

static void print_token(const nvllm_tokenizer *tokenizer, int32_t id, float logprob)
{
    json_t *text = token_text(tokenizer, id);
    char *quoted = json_dumps(text, JSON_ENCODE_ANY);
    fprintf(stderr, "%d %s %.4f", (int)id, quoted ? quoted : "?", (double)logprob);
    free(quoted);
    json_decref(text);
}

/* One line on stderr: the token taken, then the best ones. */
static void print_logprobs(const answer *a, const nvllm_event *event)
{
    print_token(a->tokenizer, event->token, event->logprob);
    for (size_t i = 0; i < event->n_top; i++) {
        fputs(i ? ", " : "  | ", stderr);
        print_token(a->tokenizer, event->top[i].token, event->top[i].logprob);
    }
    fputc('\n', stderr);
}

static void append_text(answer *a, const char *text, size_t len)
{
    char *more = len ? realloc(a->text, a->len + len) : NULL;
    if (!more) return;
    memcpy(more + a->len, text, len);
    a->text = more;
    a->len += len;
}

static void take_event(void *context, const nvllm_event *event)
{
    answer *a = context;
    bool is_token = event->kind == NVLLM_EVENT_TOKEN;
    if (a->tokens) {
        append_text(a, event->text, event->text_len);
        if (is_token) add_json_token(a, event);
        return;
    }
    if (event->text_len) {
        fwrite(event->text, 1, event->text_len, stdout);
        fflush(stdout);
        a->last = event->text[event->text_len - 1];
    }
    if (is_token && a->tokenizer) print_logprobs(a, event);
}

static void print_json(const answer *a, const generation *g)
{
    json_t *usage = json_pack("{s:i, s:i, s:i, s:f, s:f, s:f}", "prompt_tokens", (int)g->usage.prompt_tokens,
                              "cached_tokens", (int)g->usage.cached_tokens, "generated_tokens",
                              (int)g->usage.generated_tokens, "queue_ms", g->usage.queue_ms, "prompt_ms",
                              g->usage.prompt_ms, "generate_ms", g->usage.generate_ms);
    json_t *document = json_pack("{s:o, s:s, s:o, s:O}", "text", json_stringn(a->text ? a->text : "", a->len),
                                 "finish", finish_name(g->finish), "usage", usage, "tokens", a->tokens);
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(document);
}

/* The messages of one turn, rendered by the model's template; an exit code. */
static int render_prompt(char **text, const nvllm_model *model, const cli_args *args, const char *prompt,
                         size_t len)
{
    nvllm_error err = {0};
    json_t *messages = json_array();
    if (args->system)
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", args->system));
    json_array_append_new(messages,
                          json_pack("{s:s, s:o}", "role", "user", "content", json_stringn(prompt, len)));
    char *json = json_dumps(messages, 0);
    nvllm_status status = nvllm_chat_render(model, json, NULL, text, &err);
    free(json);
    json_decref(messages);
    return status ? report_failure(&err) : CLI_OK;
}

/* Whether the prompt goes through the chat template; an exit code. */
static int choose_chat(bool *chat, const nvllm_model *model, const cli_args *args)
{
    bool has_template = nvllm_model_describe(model).has_chat_template;
    if (args->chat && !has_template) return report_sentence("this model has no chat template: use --raw");
    *chat = !args->raw && has_template;
    if (args->system && !*chat)
        return report_sentence("--system needs a chat template, and this prompt goes to the model as it is");
    return CLI_OK;
}

static int run_prompt(const nvllm_model *model, const cli_args *args, const char *prompt, size_t len)
{
    nvllm_engine *engine = NULL;
    char *rendered = NULL;
    answer a = {.tokens = args->json ? json_array() : NULL};
    nvllm_error err = {0};
    bool chat;
    int rc = open_engine(&engine, model, args); /* first: the tokenizer is read meanwhile */
    if (!rc) rc = choose_chat(&chat, model, args);
    if (!rc && chat) rc = render_prompt(&rendered, model, args, prompt, len);
    if (!rc && args->logprobs.given && nvllm_model_tokenizer(model, &a.tokenizer, &err))
        rc = report_failure(&err);
    if (rc) goto done;

    nvllm_request request = make_request(model, args);
    request.text = chat ? rendered : prompt;
    request.text_len = chat ? strlen(rendered) : len;
    request.text_flags = chat ? NVLLM_PARSE_SPECIAL : NVLLM_ADD_SPECIAL | NVLLM_PARSE_SPECIAL;
    generation result;
    rc = generate(&result, engine, &request, take_event, &a);
    if (rc) goto done;
    if (a.tokens)
        print_json(&a, &result);
    else if (a.last != '\n')
        putchar('\n');
    rc = finish_output();
    print_speed(&result);
done:
    nvllm_engine_close(engine);
    nvllm_free(rendered);
    json_decref(a.tokens);
    free(a.text);
    return rc;
}

/* -p TEXT, -p - or the default; in memory of the caller's. */
static char *read_prompt(size_t *len, const cli_args *args)
{
    char *text = NULL;
    if (args->prompt && strcmp(args->prompt, "-") == 0) {
        if (!read_text(&text, len, "-")) return NULL;
        if (*len && text[*len - 1] == '\n') text[--*len] = 0;
        return text;
    }
    const char *prompt = args->prompt ? args->prompt : default_prompt;
    *len = strlen(prompt);
    size_t valid = utf8_valid_length(prompt, *len);
    if (valid < *len) {
        report_sentence("--prompt: byte %zu (0x%02x) is not valid UTF-8", valid,
                        (unsigned char)prompt[valid]);
        return NULL;
    }
    return strdup(prompt);
}

int command_run(const cli_args *args)
{
    if (args->chat && args->raw) return report_usage("run", "run: --chat and --raw exclude each other");
    if (args->system && args->raw) return report_usage("run", "run: --system and --raw exclude each other");
    size_t len;
    nvllm_model *model = NULL;
    char *prompt = read_prompt(&len, args);
    if (!prompt) return CLI_FAILED;
    int rc = open_model(&model, args, device_name(args));
    if (!rc && !args->prompt) fprintf(stderr, "prompt: %s\n", prompt);
    if (!rc) rc = run_prompt(model, args, prompt, len);
    nvllm_model_close(model);
    free(prompt);
    return rc;
}

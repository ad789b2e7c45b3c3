/* nano-vllm: single-GPU LLM inference for one person's machine. This header is the whole public interface and its
 * manual.
 *
 *     nvllm_model *model;   nvllm_engine *engine;   nvllm_error err;
 *     nvllm_model_open(&model, &(nvllm_model_options){.source = "models/demo"}, &err);
 *     nvllm_engine_open(&engine, model, NULL, &err);
 *     nvllm_request request = nvllm_request_defaults(model);
 *     request.text = "Once upon a time";
 *     nvllm_submit(engine, &request, NULL, &err);
 *     for (nvllm_event event = {0}; event.kind < NVLLM_EVENT_DONE;)
 *         if (nvllm_poll(engine, &event, 1, -1)) fwrite(event.text, 1, event.text_len, stdout);
 *     nvllm_engine_close(engine);   nvllm_model_close(model);
 *
 * Errors. Functions that can fail return nvllm_status and fill the caller's nvllm_error (which may be NULL) with one
 * sentence. The library never exits, aborts or prints. Output arguments are set only on success.
 *
 * Ownership. What nvllm_*_open gives, nvllm_*_close takes back; close(NULL) does nothing. A char* or int32_t* that a
 * function hands out is freed with nvllm_free. A borrowed pointer says until when it lives.
 *
 * Threads. A model and a tokenizer are immutable once open: any thread may use them. An engine runs a thread of its
 * own that owns the device; nvllm_submit, nvllm_cancel and nvllm_engine_stats may be called from any thread,
 * nvllm_poll from one thread at a time. Close an engine before its model.
 *
 * Option structs: zero means "the default" in every field, so `{0}` and NULL are both valid.
 * Text is UTF-8. Token ids are int32_t in [0, vocabulary size). */
#ifndef NANOVLLM_H
#define NANOVLLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NVLLM_API __attribute__((visibility("default")))
#else
#define NVLLM_API
#endif

#define NVLLM_VERSION "0.1.0"

/* ---- Errors ------------------------------------------------------------------------------------------------ */

typedef enum {
    NVLLM_OK = 0,
    NVLLM_ERR_USAGE,       /* an argument or option is wrong; nothing was done */
    NVLLM_ERR_IO,          /* a file is missing or could not be read */
    NVLLM_ERR_FORMAT,      /* a file's or a text's content is wrong */
    NVLLM_ERR_UNSUPPORTED, /* well-formed, but not something this build can run */
    NVLLM_ERR_MEMORY,      /* out of memory, or it would not fit */
    NVLLM_ERR_LIMIT,       /* longer than the context, or past another stated limit */
    NVLLM_ERR_TEMPLATE,    /* the chat template raised an error */
    NVLLM_ERR_CANCELLED,
    NVLLM_ERR_BUSY,  /* the queue is full: try again later */
    NVLLM_ERR_DEVICE /* the GPU failed while it worked; what is open on it can only be closed */
} nvllm_status;

typedef struct {
    nvllm_status code;
    char message[512]; /* one sentence, NUL-terminated */
} nvllm_error;

NVLLM_API const char *nvllm_version(void);                    /* NVLLM_VERSION of the library in use */
NVLLM_API const char *nvllm_status_name(nvllm_status status); /* "ok", "usage", "io", ... */
NVLLM_API void nvllm_free(void *text_or_ids);

/* ---- Tokenizer --------------------------------------------------------------------------------------------- */

typedef struct nvllm_tokenizer nvllm_tokenizer;

enum {
    NVLLM_ADD_SPECIAL = 1,   /* tokenize: what the tokenizer puts around a text (BOS) */
    NVLLM_PARSE_SPECIAL = 2, /* tokenize: "<|im_end|>" in the text is that token, not its letters */
    NVLLM_SKIP_SPECIAL = 4   /* detokenize: special tokens are left out */
};

/* `source`: a HF folder, a tokenizer.json or tokenizer.model, a .gguf, or org/name in the HF cache. */
NVLLM_API nvllm_status nvllm_tokenizer_open(nvllm_tokenizer **out, const char *source, nvllm_error *err);
NVLLM_API void nvllm_tokenizer_close(nvllm_tokenizer *tokenizer);

/* What a user should know about how it was read (an old GGUF that does not say how to cut text), a clause that lives
 * as long as the tokenizer; NULL: nothing. */
NVLLM_API const char *nvllm_tokenizer_note(const nvllm_tokenizer *tokenizer);

/* *ids: [*n_ids]. Invalid UTF-8 is NVLLM_ERR_FORMAT and names the byte. */
NVLLM_API nvllm_status nvllm_tokenize(const nvllm_tokenizer *tokenizer, const char *text, size_t len,
                                      unsigned flags, int32_t **ids, size_t *n_ids, nvllm_error *err);

/* *text is NUL-terminated and *len bytes long; bytes that are not UTF-8 become U+FFFD. */
NVLLM_API nvllm_status nvllm_detokenize(const nvllm_tokenizer *tokenizer, const int32_t *ids, size_t n_ids,
                                        unsigned flags, char **text, size_t *len, nvllm_error *err);

/* The bytes that one token stands for inside a text: perhaps half a character, with the space it begins with.
 * *bytes is NUL-terminated, *len long; an id without a token gives none. */
NVLLM_API nvllm_status nvllm_token_bytes(const nvllm_tokenizer *tokenizer, int32_t id, char **bytes,
                                         size_t *len, nvllm_error *err);

/* ---- Model ------------------------------------------------------------------------------------------------- */

typedef struct nvllm_model nvllm_model;

typedef struct {
    const char *source; /* a HF folder, a .gguf file, or org/name[@revision] in the HF cache */
    const char
        *random_config; /* instead of source: a config.json (or its folder) whose model gets random weights */
    const char *dtype;  /* random_config only: "f32", "f16", "bf16" or "q8_0"; NULL: as the config says */
    uint64_t seed;      /* random_config only */
    const char *
        device; /* the device that the engine will use, as in nvllm_engine_options, "auto" included: its driver
                           is made ready meanwhile; NULL: it is not */
} nvllm_model_options;

typedef struct {
    const char *architecture; /* "Qwen3ForCausalLM"; lives as long as the model, like the other strings */
    const char *source;       /* the resolved path */
    int32_t layers, model_dim, heads, kv_heads, head_dim, ff_dim, vocab_size;
    int32_t max_context;     /* tokens */
    int64_t parameters;      /* stored weights, a tied head counted once */
    int64_t weight_bytes;    /* as stored */
    int64_t bytes_per_token; /* weights read to make one token: all but the embedding table's unused rows */
    int64_t flops_per_token; /* of the matrix products, prompt tokens that need no logits */
    bool has_tokenizer, has_chat_template;
} nvllm_model_info;

/* The weights are mapped where they lie; the tokenizer is read on a thread of its own meanwhile and its errors
 * appear when it is first needed, so that a folder without a tokenizer can still be benchmarked. */
NVLLM_API nvllm_status nvllm_model_open(nvllm_model **out, const nvllm_model_options *options,
                                        nvllm_error *err);
NVLLM_API void nvllm_model_close(nvllm_model *model);
NVLLM_API nvllm_model_info nvllm_model_describe(const nvllm_model *model);

/* `what`: "config", "tensors", "graph" (the op list) or "memory"; *json is a JSON document. */
NVLLM_API nvllm_status nvllm_model_inspect(const nvllm_model *model, const char *what, char **json,
                                           nvllm_error *err);

/* The model's own tokenizer, living as long as the model. */
NVLLM_API nvllm_status nvllm_model_tokenizer(const nvllm_model *model, const nvllm_tokenizer **out,
                                             nvllm_error *err);

/* ---- Chat templates ---------------------------------------------------------------------------------------- */

typedef struct {
    const char *tools;     /* JSON list of tools, or NULL */
    const char *variables; /* JSON object of further template variables (enable_thinking, ...), or NULL */
    const char *now;       /* "2024-07-26 12:00:00" for strftime_now; NULL: the local time */
    bool no_generation_prompt;
} nvllm_chat_options;

/* `messages`: JSON list of {"role", "content", ...}. The text is ready for nvllm_tokenize with NVLLM_PARSE_SPECIAL
 * and without NVLLM_ADD_SPECIAL. */
NVLLM_API nvllm_status nvllm_chat_render(const nvllm_model *model, const char *messages,
                                         const nvllm_chat_options *options, char **text, nvllm_error *err);

/* Any Jinja template with any context (a JSON object); `now` as above. */
NVLLM_API nvllm_status nvllm_template_render(const char *source, const char *context, const char *now,
                                             char **text, nvllm_error *err);

/* ---- Engine: requests in, events out ----------------------------------------------------------------------- */

typedef struct nvllm_engine nvllm_engine;

/* How far a device's ops are put together, where it has such kernels and they take the model. Results differ by the order
 * of float32 sums. */
typedef enum {
    NVLLM_FUSION_ON,  /* fused ops, and for one sequence all of a token's as one kernel */
    NVLLM_FUSION_OPS, /* fused ops, a kernel or more for each */
    NVLLM_FUSION_OFF  /* single ops */
} nvllm_fusion;

typedef struct {
    const char *device;    /* "auto" (the GPU if there is one), "cpu", "cuda", "cuda:N", "reference" */
    const char *isa;       /* CPU: "scalar", "avx2", "avx512"; NULL: the best this machine runs */
    int32_t threads;       /* CPU threads, the engine's included; 0: one per physical core */
    int32_t context;       /* tokens per sequence, prompt and answer; 0: the model's, at most 4,096 */
    int32_t max_sequences; /* sequences in one step; 0: 8 */
    int64_t kv_tokens;   /* tokens that the KV cache holds in all; 0: context * max_sequences, or what fits */
    int64_t kv_bytes;    /* instead of kv_tokens: memory of the KV cache; 0: kv_tokens decides */
    int32_t step_tokens; /* most tokens in one step, prompts and answers together; 0: 128, on a GPU 2,048 */
    int32_t queue;       /* requests that may wait; 0: 1,024 */
    bool no_prefix_cache; /* do not keep the pages of finished sequences for others that begin alike */
    nvllm_fusion fusion;
} nvllm_engine_options;

/* NULL options: the defaults. Fails with figures when weights and KV cache do not fit into memory. */
NVLLM_API nvllm_status nvllm_engine_open(nvllm_engine **out, const nvllm_model *model,
                                         const nvllm_engine_options *options, nvllm_error *err);

/* What nvllm_engine_open would take with these options, without taking it: *json is the document of
 * nvllm_model_inspect "memory" and, in it, "plan". Opens the device for the question. */
NVLLM_API nvllm_status nvllm_engine_plan(const nvllm_model *model, const nvllm_engine_options *options,
                                         char **json, nvllm_error *err);
/* Cancels what runs and waits for the engine's thread. */
NVLLM_API void nvllm_engine_close(nvllm_engine *engine);

typedef struct {
    int32_t token;
    float logprob; /* natural logarithm, of the model's own distribution before temperature and penalties */
} nvllm_logprob;

typedef struct {
    int32_t token;
    float bias; /* added to the token's logit */
} nvllm_logit_bias;

/* Start from nvllm_request_defaults: here zero is a value (temperature 0 is greedy). Everything is copied by submit. */
typedef struct {
    const char *text;    /* the prompt, or NULL when ids are given */
    size_t text_len;     /* bytes; 0: up to the NUL */
    unsigned text_flags; /* NVLLM_ADD_SPECIAL | NVLLM_PARSE_SPECIAL */
    const int32_t *ids;  /* [n_ids] the prompt as tokens */
    size_t n_ids;

    int32_t max_tokens; /* 0: up to the context */
    int32_t min_tokens; /* no end of sequence before */
    float temperature, top_p, min_p;
    int32_t top_k;
    float repetition_penalty, presence_penalty, frequency_penalty;
    uint64_t seed;
    const nvllm_logit_bias *logit_bias;
    size_t n_logit_bias;

    const char *const *stop; /* [n_stop] strings that end the answer, not part of it */
    size_t n_stop;
    const int32_t *stop_ids; /* [n_stop_ids] tokens that end the answer, beside the model's own EOS ids */
    size_t n_stop_ids;
    bool ignore_eos;
    bool include_stop;    /* the stop string is part of the text */
    bool keep_special;    /* special tokens appear in the text */
    int32_t logprobs;     /* -1: none; K: each token's log-probability and the K best, K <= 20 */
    bool prompt_logprobs; /* the same for the prompt's tokens (the first has none: 0); needs logprobs >= 0 */
    int32_t priority;     /* higher runs first and is the last to be preempted; 0 is usual */
} nvllm_request;

/* The model's generation_config.json, where it has one: sampling as it asks; otherwise greedy. */
NVLLM_API nvllm_request nvllm_request_defaults(const nvllm_model *model);

typedef enum {
    NVLLM_EVENT_TOKEN,  /* one token; its text may be empty: half a character, perhaps a stop string */
    NVLLM_EVENT_PROMPT, /* with request.prompt_logprobs: one per prompt token, before the first TOKEN */
    NVLLM_EVENT_DONE,   /* the last event of a request; text holds what was held back */
    NVLLM_EVENT_ERROR   /* the last event of a request that failed */
} nvllm_event_kind;

typedef enum {
    NVLLM_FINISH_NONE = 0,
    NVLLM_FINISH_STOP,   /* an EOS id, a stop id or a stop string */
    NVLLM_FINISH_LENGTH, /* max_tokens, or the context is full */
    NVLLM_FINISH_CANCELLED,
    NVLLM_FINISH_ERROR
} nvllm_finish;

typedef struct {
    int32_t prompt_tokens, cached_tokens, generated_tokens;
    double queue_ms;    /* submit to first step */
    double prompt_ms;   /* first step to first token */
    double generate_ms; /* first token to last */
} nvllm_usage;

/* Pointers live until the next nvllm_poll. */
typedef struct {
    uint64_t request;
    nvllm_event_kind kind;
    int32_t token; /* -1 for events without one */
    const char *text;
    size_t text_len;
    double seconds; /* TOKEN: when the token was there, by CLOCK_MONOTONIC, however late it is polled */
    float logprob;  /* with request.logprobs >= 0 */
    const nvllm_logprob *top; /* [n_top] */
    size_t n_top;
    nvllm_finish finish; /* DONE */
    nvllm_usage usage;   /* DONE */
    const char *error;   /* ERROR: the sentence */
} nvllm_event;

/* Queues a request; *id (may be NULL) names it in events. Fails at once when it can never run: a prompt longer than
 * the context (NVLLM_ERR_LIMIT), an option out of range (NVLLM_ERR_USAGE), a full queue (NVLLM_ERR_BUSY). */
NVLLM_API nvllm_status nvllm_submit(nvllm_engine *engine, const nvllm_request *request, uint64_t *id,
                                    nvllm_error *err);

/* Up to `capacity` events in the order in which they happened; returns their number. Waits up to timeout_ms for the
 * first (-1: without limit, but returns 0 when no request is left that could bring one). */
NVLLM_API size_t nvllm_poll(nvllm_engine *engine, nvllm_event *events, size_t capacity, int timeout_ms);

/* The request ends with NVLLM_FINISH_CANCELLED within a step. Unknown or finished ids are ignored. */
NVLLM_API void nvllm_cancel(nvllm_engine *engine, uint64_t id);

/* Log-probability of each token given those before it, in one context window: logprobs[i] for ids[i], [n_ids];
 * logprobs[0] is 0. Blocks; n_ids must fit the context. */
NVLLM_API nvllm_status nvllm_score(nvllm_engine *engine, const int32_t *ids, size_t n_ids, float *logprobs,
                                   nvllm_error *err);

typedef struct {
    int32_t running, waiting;
    int64_t kv_tokens_used, kv_tokens;
    uint64_t steps, prompt_tokens,
        generated_tokens;                 /* since the engine was opened; prompt_tokens: computed ones */
    uint64_t prefix_queries, prefix_hits; /* prompt tokens looked up in, and found in, the prefix cache */
    uint64_t preemptions;
    int64_t kv_bytes_per_token, kv_bytes, workspace_bytes;
    int32_t threads, step_tokens;
    int32_t kernels_per_step; /* GPU: in the step of single tokens that was recorded last; 0: none was */
    const char *device, *isa; /* isa: on a GPU its name */
    const char *device_id;    /* names this very GPU; NULL on the CPU */
    const char
        *passed_over; /* why the device "auto" is not the GPU, a clause; NULL: it is, or was not asked for */
    const char *unfused; /* what of the model the device's fused ops do not take, a clause; NULL: nothing */
    const char *
        unchained; /* why a token of one sequence is not one kernel on a device that could, a clause; NULL: it is */
    const char *failure; /* the GPU failed: the sentence that all requests get; NULL: it works */
} nvllm_stats;

NVLLM_API nvllm_stats nvllm_engine_stats(nvllm_engine *engine);

typedef struct {
    double read_gb_per_s; /* measured sustained read bandwidth of the device's memory, 1e9 bytes */
    double bf16_gflops;   /* measured rate of bf16 products with float32 sums */
} nvllm_limits;

/* Measures the device for about a second. Call it while no request runs. */
NVLLM_API nvllm_limits nvllm_measure_limits(nvllm_engine *engine);

/* ---- Looking into steps ------------------------------------------------------------------------------------ */

/* From here until nvllm_profile_stop every op of every step is timed, whatever requests run. Such steps are slower than
 * others: ops run one by one; a GPU's without overlap, and only when all of a step have been started. */
NVLLM_API nvllm_status nvllm_profile_start(nvllm_engine *engine, nvllm_error *err);

/* *json: {"ops": [{op, role, layer}], "steps": [{tokens, rows, logits, kv_tokens, begin_us, launch_us, launched_us,
 * end_us, times}], "dropped_steps"}. times: one [index in ops, start, us, bytes, flops] per op that ran, on the device;
 * bytes: what it must at least move of weights and KV cache. begin_us ... end_us: the host's side of the step: begun, before the first op,
 * after the last was handed over (on the CPU: had run), ended. All times since the start, in microseconds. Steps beyond
 * some 260,000 ops are counted in dropped_steps and not listed. */
NVLLM_API nvllm_status nvllm_profile_stop(nvllm_engine *engine, char **json, nvllm_error *err);

typedef struct {
    const char *device;  /* as nvllm_engine_options.device */
    const char *against; /* the same; NULL: "reference" for the CPU, "cpu" for others */
    const char *isa;     /* CPU: as in nvllm_engine_options */
    int32_t threads;
    int32_t step_tokens; /* prompt tokens in one step; 1: as in decoding; 0: 128 */
    nvllm_fusion fusion; /* layers are compared op by op, so ON is as OPS here */
    double bound;        /* largest relative error that passes; 0: by the weights' format, see below */
} nvllm_check_options;

/* Runs one prompt on two devices and compares, after every layer, the residual stream, and the logits of the last 16
 * tokens of every step, over all tokens: error = ||a - b|| / ||b||, where b is `against`. *json: {"device", "against",
 * "dtype", "tokens", "step_tokens", "bound", "passed", "first_bad", "layers": [{layer, error, max_diff, max}], "logits": {error,
 * max_diff, max}}; an error that is no number is null and does not pass. Default bounds: 1e-4 for f32 weights, 5e-3 for
 * f16, 3e-2 for bf16, 5e-2 for q8_0: what rounding of inputs and KV cache explains, and what a wrong kernel exceeds. */
NVLLM_API nvllm_status nvllm_check_layers(const nvllm_model *model, const int32_t *ids, size_t n_ids,
                                          const nvllm_check_options *options, char **json, nvllm_error *err);

#ifdef __cplusplus
}
#endif
#endif

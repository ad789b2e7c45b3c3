/* The table of commands, with the options that only one of them takes. */
#include "cli.h"

#define AT(field) offsetof(cli_args, field)

static const cli_option options_json[] = {
    {"json", 0, OPTION_FLAG, AT(json), NULL, "one JSON document on stdout"},
    {NULL},
};

static const cli_option options_run[] = {
    {"prompt", 'p', OPTION_TEXT, AT(prompt), "TEXT",
     "the prompt; - reads it from stdin, without its last newline"},
    {"chat", 0, OPTION_FLAG, AT(chat), NULL,
     "put the prompt through the chat template (default where there is one)"},
    {"raw", 0, OPTION_FLAG, AT(raw), NULL, "continue the prompt as it is"},
    {"system", 0, OPTION_TEXT, AT(system), "TEXT", "system message"},
    {"logprobs", 0, OPTION_INTEGER, AT(logprobs), "K",
     "log-probability of each token and of the K best, on stderr or in --json", 0, 20},
    {NULL},
};

static const cli_option options_chat[] = {
    {"system", 0, OPTION_TEXT, AT(system), "TEXT", "system message"},
    {NULL},
};

static const cli_option options_serve[] = {
    {"host", 0, OPTION_TEXT, AT(host), "ADDRESS", "where to listen (default 127.0.0.1)"},
    {"port", 0, OPTION_INTEGER, AT(port), "N", "0 takes a free one, which is printed (default 8000)", 0,
     65535},
    {"served-model-name", 0, OPTION_TEXT, AT(served_model_name), "NAME",
     "what clients call the model (default: the last part of MODEL)"},
    {"api-key", 0, OPTION_LIST, AT(api_keys), "KEY",
     "clients must send it; may be given several times; also read from $NANO_VLLM_API_KEY"},
    {"api-key-file", 0, OPTION_TEXT, AT(api_key_file), "FILE", "one key per line"},
    {"cors", 0, OPTION_LIST, AT(cors), "ORIGIN", "let pages of this origin ask; * is all of them"},
    {"max-sequences", 0, OPTION_INTEGER, AT(max_sequences), "N", "answers made at once (default 32)", 1,
     4096},
    {"max-queue", 0, OPTION_INTEGER, AT(max_queue), "N",
     "requests that may wait, others get 429 (default 1024)", 1, 1 << 20},
    {"step-tokens", 0, OPTION_INTEGER, AT(step_tokens), "N",
     "most tokens in one step (default 128; on a GPU 2048)", 1, 65536},
    {"no-prefix-cache", 0, OPTION_FLAG, AT(no_prefix_cache), NULL,
     "compute every prompt anew, also where it begins like an earlier one"},
    {"max-connections", 0, OPTION_INTEGER, AT(max_connections), "N", "others get 503 (default 4096)", 1,
     1 << 20},
    {"max-body", 0, OPTION_INTEGER, AT(max_body), "KIB", "longest request body (default 16384)", 1, 1 << 22},
    {"max-header", 0, OPTION_INTEGER, AT(max_header), "KIB",
     "longest request line and headers; a connection takes twice that (default 16)", 4, 1 << 16},
    {"max-buffer", 0, OPTION_INTEGER, AT(max_buffer), "KIB",
     "what may wait for a client that reads slowly before it is dropped (default 4096)", 1, 1 << 22},
    {"max-answer", 0, OPTION_INTEGER, AT(max_answer), "KIB",
     "longest answer that is not streamed, a longer one is refused (default 65536)", 1, 1 << 22},
    {"idle-timeout", 0, OPTION_INTEGER, AT(idle_timeout), "S",
     "close connections that are silent for so long; 0: never (default 120)", 0, 86400},
    {"keepalive", 0, OPTION_INTEGER, AT(keepalive), "S",
     "comment in a stream that is silent for so long; 0: none (default 15)", 0, 86400},
    {"drain-timeout", 0, OPTION_INTEGER, AT(drain_timeout), "S",
     "how long SIGTERM waits for answers in progress (default 30)", 0, 86400},
    {"log-requests", 0, OPTION_FLAG, AT(log_requests), NULL, "one line per request on stderr"},
    {"log-prompts", 0, OPTION_FLAG, AT(log_prompts), NULL, "request bodies on stderr, prompts included"},
    {NULL},
};

static const cli_option options_random[] = {
    {"random-weights", 0, OPTION_TEXT, AT(random_weights), "CONFIG",
     "instead of -m: the model of this config.json, with random weights"},
    {"dtype", 0, OPTION_TEXT, AT(dtype), "TYPE",
     "of random weights: f32, f16, bf16, q8_0 (default: as the config says)"},
    {"seed", 0, OPTION_INTEGER, AT(seed), "S", "of random weights and prompts (default 0)", 0, 9e15},
    {NULL},
};

static const cli_option options_bench[] = {
    {"prompt-tokens", 'p', OPTION_INTEGER, AT(prompt_tokens), "N",
     "length of the prompts timed (default 128)", 1, 1 << 24},
    {"gen-tokens", 'n', OPTION_INTEGER, AT(gen_tokens), "N", "tokens generated and timed (default 64)", 2,
     1 << 24},
    {"batch", 'b', OPTION_INTEGER, AT(batch), "N", "sequences at once (default 1)", 1, 4096},
    {"context", 'c', OPTION_INTEGER, AT(context), "N",
     "tokens in the cache before generation is timed (default 1)", 1, 1 << 24},
    {"contexts", 0, OPTION_TEXT, AT(contexts), "LIST",
     "instead of --context, like 1,1024,4096: a table of generation over all of them and all of --batches"},
    {"batches", 0, OPTION_TEXT, AT(batches), "LIST", "instead of --batch, like 1,8,32"},
    {"reps", 'r', OPTION_INTEGER, AT(reps), "N",
     "repetitions; the median, least and most are printed (default 5)", 1, 1000},
    {"step-tokens", 0, OPTION_INTEGER, AT(step_tokens), "N",
     "most tokens in one step (default: the engine's own)", 1, 65536},
    {"profile", 0, OPTION_FLAG, AT(op_times), NULL,
     "also a table of the time of every kind of op, in a step of a prompt and of generation"},
    {"measure-again", 0, OPTION_FLAG, AT(measure_again), NULL,
     "measure the GPU's limits also where they are known from another day"},
    {NULL},
};

static const cli_option options_profile[] = {
    {"prompt", 'p', OPTION_TEXT, AT(prompt), "TEXT",
     "the prompt, as it is; - reads it from stdin (default: random tokens)"},
    {"prompt-tokens", 0, OPTION_INTEGER, AT(prompt_tokens), "N", "how many random tokens (default 128)", 1,
     1 << 24},
    {"tokens", 'n', OPTION_INTEGER, AT(gen_tokens), "N", "tokens to generate (default 16)", 1, 1 << 24},
    {"output", 'o', OPTION_TEXT, AT(output), "FILE", "the trace; - writes it to stdout"},
    {NULL},
};

static const cli_option options_check[] = {
    {"layers", 0, OPTION_FLAG, AT(layers), NULL,
     "compare what every layer makes of a prompt with what another device makes of it"},
    {"against", 0, OPTION_TEXT, AT(against), "NAME",
     "the other device (default: reference, which is slow; for a GPU cpu)"},
    {"prompt", 'p', OPTION_TEXT, AT(prompt), "TEXT",
     "the prompt, as it is; - reads it from stdin (default: a sentence; without a tokenizer random tokens)"},
    {"prompt-tokens", 0, OPTION_INTEGER, AT(prompt_tokens), "N",
     "random tokens instead, and how many (default 64)", 1, 1 << 20},
    {"step-tokens", 0, OPTION_INTEGER, AT(step_tokens), "N",
     "prompt tokens in one step (default 128); 1 runs what generation runs", 1, 65536},
    {"bound", 0, OPTION_REAL, AT(bound), "X",
     "largest relative error that passes (default: f32 1e-4, f16 5e-3, bf16 3e-2, q8_0 5e-2)", 1e-9, 1e9},
    {NULL},
};

static const cli_option options_perplexity[] = {
    {"context", 'c', OPTION_INTEGER, AT(context), "N", "tokens of a window (default 512)", 4, INT32_MAX},
    {"file", 'f', OPTION_TEXT, AT(file), "FILE", "the text; - reads it from stdin"},
    {NULL},
};

static const cli_option options_tokenize[] = {
    {"special", 0, OPTION_FLAG, AT(special), NULL,
     "read special tokens in the text as such, like <|im_end|>"},
    {"no-bos", 0, OPTION_FLAG, AT(no_bos), NULL, "add nothing around the text"},
    {NULL},
};

static const cli_option options_detokenize[] = {
    {"special", 0, OPTION_FLAG, AT(special), NULL, "write special tokens too"},
    {NULL},
};

static const cli_option options_render[] = {
    {"template", 0, OPTION_TEXT, AT(template_file), "FILE", "a Jinja template, instead of the model's"},
    {"context", 0, OPTION_TEXT, AT(context_file), "FILE",
     "JSON object with messages, tools, add_generation_prompt, ...; - is stdin"},
    {"now", 0, OPTION_TEXT, AT(now), "TIME", "what strftime_now sees: '2024-07-26 12:00:00' (default: now)"},
    {NULL},
};

static const cli_option options_inspect[] = {
    {"max-sequences", 0, OPTION_INTEGER, AT(max_sequences), "N", "answers made at once (default 8)", 1, 4096},
    {NULL},
};

const cli_command cli_commands[] = {
    {"run",
     "answer one prompt",
     "[-m MODEL] [-p PROMPT|-] [options]",
     "Streams the answer to stdout; the last line on stderr tells the speed. Without -p it asks for a little "
     "story. Ctrl-C ends the answer early, twice ends the program.",
     NULL,
     {options_model, options_run, options_sampling, options_device, options_context, options_memory,
      options_json, options_common},
     command_run},
    {"chat",
     "talk with a model",
     "[-m MODEL] [options]",
     "Several turns in the terminal, with line editing and history; /help lists its commands. Ctrl-C ends an "
     "answer. Where stdin is not a terminal, each line is a turn.",
     NULL,
     {options_model, options_chat, options_sampling, options_device, options_context, options_memory,
      options_common},
     command_chat},
    {"serve",
     "answer over HTTP, as OpenAI's API",
     "[-m MODEL] [--port N] [options]",
     "Serves chat and text completions to OpenAI clients, and a chat page at /. It listens at once and "
     "answers "
     "/health with 503 until the model is loaded. SIGTERM or Ctrl-C ends it when running answers are "
     "complete, a "
     "second one at once.",
     NULL,
     {options_model, options_serve, options_device, options_context, options_memory, options_common},
     command_serve},
    {"bench",
     "measure speed and memory",
     "[-m MODEL | --random-weights CONFIG] [options]",
     "Tokens per second of prompt and of generation, beside what this machine's memory and arithmetic allow. "
     "Prompts are random tokens. Times are end to end, from submission to event.",
     NULL,
     {options_model, options_random, options_bench, options_device, options_memory, options_json,
      options_common},
     command_bench},
    {"profile",
     "write a trace of every op's time",
     "[-m MODEL | --random-weights CONFIG] -o FILE [options]",
     "Runs a prompt and some tokens with every op timed, writes Chrome trace events (open them in "
     "chrome://tracing or ui.perfetto.dev), and prints the ops' shares. Ops that are timed run one by one.",
     NULL,
     {options_model, options_random, options_profile, options_device, options_context, options_common},
     command_profile},
    {"check",
     "compare a device with another, layer by layer",
     "--layers [-m MODEL | --random-weights CONFIG] [options]",
     "Runs one prompt on two devices and prints, for every layer and the logits, the relative error of one "
     "against the other: the first thing to try when a GPU talks nonsense. Exit code 1 when any is beyond "
     "the bound.",
     NULL,
     {options_model, options_random, options_check, options_device, options_json, options_common},
     command_check},
    {"perplexity",
     "score a text",
     "[-m MODEL] -f FILE [--context N]",
     "The text, tokenized once with its BOS, is cut into windows of N tokens; a last window that is not full "
     "is dropped. The first token of each is replaced by BOS, and the tokens after position N/2 are scored.",
     NULL,
     {options_model, options_perplexity, options_device, options_memory, options_json, options_common},
     command_perplexity},
    {"tokenize",
     "text on stdin to token ids",
     "[-m MODEL_OR_TOKENIZER] [--special] [--no-bos]",
     "Prints the ids on one line, separated by spaces. Also takes a tokenizer.json or tokenizer.model.",
     NULL,
     {options_model, options_tokenize, options_common},
     command_tokenize},
    {"detokenize",
     "token ids on stdin to text",
     "[-m MODEL_OR_TOKENIZER] [--special]",
     "Prints exactly the text, nothing added. Special tokens are left out unless --special is given.",
     NULL,
     {options_model, options_detokenize, options_common},
     command_detokenize},
    {"render",
     "print what a chat template makes of messages",
     "[-m MODEL | --template FILE] --context FILE [--now TIME]",
     "Prints exactly the rendered text, nothing added.",
     NULL,
     {options_model, options_render, options_common},
     command_render},
    {"inspect",
     "look into a model",
     "[config|tensors|graph|memory] [-m MODEL] [--json]",
     "Without a word: the model in a few lines. graph is the list of operations that a forward pass runs. "
     "memory "
     "is what the model would take of the device with these options, and what is free there.",
     "config|tensors|graph|memory",
     {options_model, options_device, options_context, options_inspect, options_memory, options_json,
      options_common},
     command_inspect},
    {NULL},
};

/* A model's chat template: finds it, compiles it once, and renders conversations with it.
 *
 * In a Hugging Face folder the default template is that of chat_template.jinja, else of `chat_template` in
 * tokenizer_config.json (a string, or a list of {name, template}), else additional_chat_templates/default.jinja;
 * one named tool_use, from the last two places, is taken instead when tools are given.
 * What a template sees is what transformers' apply_chat_template shows it: the special tokens of
 * tokenizer_config.json and special_tokens_map.json (bos_token, eos_token, ...), messages, tools, documents,
 * add_generation_prompt, and the caller's own variables.
 *
 * Immutable after opening: any number of threads may render with it. It does not tokenize. */
#ifndef NVLLM_TEXT_CHAT_TEMPLATE_H
#define NVLLM_TEXT_CHAT_TEMPLATE_H

#include "text/jinja.h"

typedef struct chat_template chat_template;

typedef struct {
    const json_t *messages;  /* a list of objects with "role" and "content" */
    const json_t *tools;     /* a list of tool schemas; NULL or an empty list: no tools */
    const json_t *variables; /* an object with more variables (enable_thinking, documents, ...); NULL: none */
    bool no_generation_prompt;
    jinja_options jinja;
} chat_template_input;

/* NVLLM_ERR_UNSUPPORTED: the folder has no chat template. */
nvllm_status chat_template_open(chat_template **out, const char *folder, nvllm_error *err);

/* From text, as GGUF holds it. tool_source (NULL: none) is for when tools are given; special_tokens (NULL: none)
 * is an object of name -> text, which is copied. */
nvllm_status chat_template_from_source(chat_template **out, const char *source, const char *tool_source,
                                       const json_t *special_tokens, nvllm_error *err);

/* The source of the default template; lives as long as ct. */
const char *chat_template_source(const chat_template *ct);

/* The prompt; *text is NUL-terminated and the caller's (free). Errors are those of jinja_render, and
 * NVLLM_ERR_FORMAT for messages, tools or variables of the wrong shape. */
nvllm_status chat_template_render(const chat_template *ct, const chat_template_input *in, char **text,
                                  size_t *len, nvllm_error *err);

void chat_template_close(chat_template *ct);

#endif

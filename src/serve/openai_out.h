/* Answers of the OpenAI dialect: whole documents and stream chunks, as JSON text. */
#ifndef NVLLM_SERVE_OPENAI_OUT_H
#define NVLLM_SERVE_OPENAI_OUT_H

#include "serve/generation.h"

/* The answer of a generation that has ended. */
void openai_write_answer(wire *out, generation *g);

/* A chunk with what the choice holds and has not sent; then that is empty. With `last`, its finish reason too. */
void openai_write_chunk(wire *out, generation *g, choice *c);
void openai_write_last_chunk(wire *out, generation *g, choice *c);

/* The chunk without choices that carries the usage. */
void openai_write_usage_chunk(wire *out, generation *g);

#endif

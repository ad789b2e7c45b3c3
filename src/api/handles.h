/* What stands behind the opaque handles of nanovllm.h. */
#ifndef NVLLM_API_HANDLES_H
#define NVLLM_API_HANDLES_H

#include "formats/model_source.h"
#include "model/generation_config.h"
#include "model/model.h"
#include "nanovllm.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

#include <pthread.h>

struct nvllm_tokenizer {
    tokenizer *tokenizer;
};

/* The text side of a model: read on a thread of its own while the weights are mapped. */
typedef struct {
    const char *path; /* the model's */
    const gguf *gguf; /* NULL for a folder */
    nvllm_tokenizer handle;
    chat_template *chat;
    nvllm_error tokenizer_error, chat_error; /* code NVLLM_OK: it is there */
} model_text;

struct nvllm_model {
    model *model;
    char *path;
    generation_config generation;
    model_text text;
    pthread_t text_thread;
    pthread_mutex_t text_lock;
    bool text_running; /* the thread was started and not yet joined */
    char *device;      /* being made ready on a thread; NULL: none */
    pthread_t device_thread;
};

/* Waits for the text side. */
const model_text *model_text_of(const nvllm_model *m);

/* A GGUF's tokenizer and chat template (gguf_tokenizer.c); t may be NULL. */
nvllm_status tokenizer_of_gguf(tokenizer **out, const gguf *file, nvllm_error *err);
nvllm_status chat_template_of_gguf(chat_template **out, const gguf *file, const tokenizer *t,
                                   nvllm_error *err);

#endif

/* The tiny models of tests/fixtures/families and gguf with their reference data, and a runner for one prompt. */
#ifndef NVLLM_TEST_FAMILY_H
#define NVLLM_TEST_FAMILY_H

#include "engine/engine.h"
#include "formats/tensor_store.h"
#include "formats/safetensors.h"
#include "model/model.h"

#include <stdbool.h>

#define FAMILY_MAX 64

typedef struct {
    char name[96];
    char path[512];      /* what model_open takes */
    char reference[640]; /* the file of reference tensors */
} family_case;

/* All cases, sorted by name; returns their number. */
int family_cases(family_case *out);

typedef struct {
    model *model;
    safetensors *file;
    const int32_t *prompt, *greedy;
    const float *logits, *greedy_gap; /* [n_prompt, V], [64] */
    float max_logit,
        low_error; /* low_error: of the reference itself run in bf16 (f16), relative to max_logit */
    int32_t n_prompt, n_greedy;
    bool wide; /* float32 weights */
} family_model;

void family_open(family_model *out, const family_case *which);
void family_close(family_model *f);

/* A reference tensor's float data; NULL: the case has none. */
const float *family_tensor(const family_model *f, const char *name);

/* Is the clause of fusion_report.no_chain about the GPU, not about the model? */
bool family_gpu_refuses(const char *no_chain);

backend *family_backend(const char *device, const char *isa, int threads);

#endif

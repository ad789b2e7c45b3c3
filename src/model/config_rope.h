/* RoPE parameters of config.json, in both spellings. Used by config.c and config_gguf.c only. */
#ifndef NVLLM_MODEL_CONFIG_ROPE_H
#define NVLLM_MODEL_CONFIG_ROPE_H

#include "model/config.h"
#include "model/json_reader.h"

/* Fills out->rope; needs out->family and out->max_context. */
void config_read_rope(model_config *out, json_reader *r);

/* YaRN's default for attention_factor: 0.1 * mscale * ln(factor) + 1. */
double config_yarn_mscale(double factor, double mscale);

#endif

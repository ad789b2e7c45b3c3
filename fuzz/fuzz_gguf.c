/* Any bytes as a .gguf file: parsed, all values and tensors that were accepted are read, then taken as a model's
 * configuration. */
#include "formats/gguf.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t touch(const uint8_t *bytes, size_t count)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < count; i++) sum ^= bytes[i];
    return sum;
}

static uint8_t touch_array(const gguf_array *a, int depth)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < a->count; i++) {
        if (a->type == GGUF_STRING)
            sum ^= touch((const uint8_t *)a->strings[i].data, a->strings[i].len);
        else if (a->type == GGUF_ARRAY && depth < 8)
            sum ^= touch_array(&a->arrays[i], depth + 1);
        else
            sum ^= (uint8_t)gguf_array_int(a, i) ^ (gguf_array_float(a, i) > 0);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static model_config config;
    static float inv_freq[CONFIG_MAX_HEAD_DIM / 2];
    gguf *file;
    nvllm_error err;
    volatile uint8_t sum = 0;
    if (gguf_parse(&file, data, size, "fuzz.gguf", &err)) return 0;
    for (size_t i = 0; i < gguf_key_count(file); i++) {
        const gguf_entry *e = gguf_key_at(file, i);
        if (e->type == GGUF_ARRAY) sum ^= touch_array(&e->as.a, 0);
        if (e->type == GGUF_STRING) sum ^= touch((const uint8_t *)e->as.s.data, e->as.s.len);
    }
    for (size_t i = 0; i < gguf_tensor_count(file); i++)
        sum ^= touch(gguf_tensor_at(file, i)->data, gguf_tensor_at(file, i)->bytes);
    if (!config_read_gguf(&config, file, &err)) config_rope_frequencies(&config, inv_freq);
    gguf_close(file);
    return 0;
}

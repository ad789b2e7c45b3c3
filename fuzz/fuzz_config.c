/* Any bytes as config.json and as generation_config.json; an accepted config also gives its frequencies. */
#include "model/config.h"
#include "model/generation_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static model_config config;
    static float inv_freq[CONFIG_MAX_HEAD_DIM / 2];
    generation_config generation;
    nvllm_error err;
    if (!config_read_json(&config, (const char *)data, size, "config.json", &err))
        config_rope_frequencies(&config, inv_freq);
    generation_config_read(&generation, (const char *)data, size, "generation_config.json", &err);
    return 0;
}

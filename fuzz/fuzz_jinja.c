/* libFuzzer target: compiles and renders arbitrary templates with small limits.
 *
 * The first byte chooses one of the contexts below; the rest is the template. Build by hand:
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -Isrc -Iinclude fuzz/fuzz_jinja.c src/text/jinja*.c \
 *         src/base/arena.c src/base/buffer.c src/base/error.c -ljansson -lutf8proc -lm */
#include "text/jinja.h"

#include <stdint.h>
#include <stdlib.h>

static const char *const contexts[] = {
    "{}",
    "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": "
    "\"Hi <b>\"},"
    " {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"type\": \"function\", \"function\":"
    " {\"name\": \"f\", \"arguments\": {\"a\": 1}}}]}], \"add_generation_prompt\": true, \"bos_token\": "
    "\"<s>\","
    " \"eos_token\": \"</s>\", \"tools\": [{\"function\": {\"name\": \"f\", \"parameters\": {\"x\": [1, "
    "2.5]}}}]}",
    "{\"s\": \"Stra\\u00dfe \\ud83e\\udd17\\n x\", \"i\": 7, \"f\": -2.5, \"t\": true, \"n\": null, \"l\": "
    "[3, 1, 2],"
    " \"d\": {\"a\": 1, \"b\": [\"x\"]}, \"x\": 9223372036854775807}",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    jinja_options options = {.has_now = true,
                             .now = {.tm_year = 124, .tm_mon = 6, .tm_mday = 26},
                             .max_steps = 20000,
                             .max_depth = 200,
                             .max_memory = 1 << 20,
                             .max_output = 1 << 16};
    jinja_template *t = NULL;
    char *text = NULL;
    size_t len;
    json_t *context = json_loads(contexts[data[0] % 3], 0, NULL);
    if (jinja_compile(&t, (const char *)data + 1, size - 1, NULL) == NVLLM_OK) {
        jinja_render(t, context, &options, &text, &len, NULL);
    }
    free(text);
    jinja_free(t);
    json_decref(context);
    return 0;
}

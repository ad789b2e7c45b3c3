/* nano-vllm check --layers: one prompt on two devices, compared after every layer. */
#define _GNU_SOURCE
#include "cli.h"
#include "prompt_ids.h"
#include "session.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char default_prompt[] =
    "Once upon a time there was a little dog who lived in a small house near the sea. Every morning it ran "
    "down to the water, barked at the waves, and waited for the fishing boats to come home.";

enum { PROMPT_TOKENS = 64 };

static void print_number(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    if (json_is_number(value))
        printf("  %11.4g", json_number_value(value));
    else
        printf("  %11s", "no number");
}

static void print_row(const char *name, const json_t *row, double bound)
{
    const json_t *error = json_object_get(row, "error");
    printf("%-9s", name);
    print_number(row, "error");
    print_number(row, "max_diff");
    print_number(row, "max");
    puts(json_is_number(error) && json_number_value(error) <= bound ? "" : "  <- beyond the bound");
}

static void layer_name(char *out, size_t size, const json_t *number)
{
    int layer = (int)json_integer_value(number);
    if (layer < 0)
        snprintf(out, size, "embedding");
    else
        snprintf(out, size, "layer %d", layer);
}

static const char *text(const json_t *result, const char *key)
{
    const char *value = json_string_value(json_object_get(result, key));
    return value ? value : "";
}

static void print_result(const json_t *result)
{
    double bound = json_number_value(json_object_get(result, "bound"));
    size_t i;
    json_t *row;
    printf("%s against %s: %d tokens in steps of %d, %s weights, bound %g\n\n", text(result, "device"),
           text(result, "against"), (int)json_integer_value(json_object_get(result, "tokens")),
           (int)json_integer_value(json_object_get(result, "step_tokens")), text(result, "dtype"), bound);
    printf("%-9s  %11s  %11s  %11s\n", "after", "error", "max |diff|", "max");
    json_array_foreach(json_object_get(result, "layers"), i, row)
    {
        char name[32];
        layer_name(name, sizeof name, json_object_get(row, "layer"));
        print_row(name, row, bound);
    }
    print_row("logits", json_object_get(result, "logits"), bound);
}

/* The sentence on stderr when the check did not pass; an exit code. */
static int judge(const json_t *result)
{
    if (json_is_true(json_object_get(result, "passed"))) return CLI_OK;
    const json_t *first = json_object_get(result, "first_bad");
    char where[32] = "the logits";
    if (json_is_integer(first)) layer_name(where, sizeof where, first);
    return report_sentence("%s and %s differ by more than the bound, first in %s", text(result, "device"),
                           text(result, "against"), where);
}

static int check_layers(const nvllm_model *model, const cli_args *args, const int32_t *ids, size_t n)
{
    nvllm_error err = {0};
    char *json = NULL;
    nvllm_check_options options = {.device = args->device,
                                   .against = args->against,
                                   .isa = args->isa,
                                   .threads = (int32_t)args->threads.value,
                                   .step_tokens = (int32_t)args->step_tokens.value,
                                   .fusion = (nvllm_fusion)args->fusion,
                                   .bound = args->bound.value};
    if (nvllm_check_layers(model, ids, n, &options, &json, &err)) return report_failure(&err);
    json_t *result = json_loads(json, 0, NULL);
    if (args->json)
        puts(json);
    else
        print_result(result);
    int rc = judge(result);
    json_decref(result);
    nvllm_free(json);
    int written = finish_output();
    return rc ? rc : written;
}

int command_check(const cli_args *args)
{
    nvllm_model *model = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    int rc = check_model_options("check", args);
    if (!rc && !args->layers) rc = report_usage("check", "check: what to check is missing: --layers");
    if (!rc) rc = open_model(&model, args, device_name(args));
    if (!rc) rc = prompt_ids(&ids, &n, model, args, default_prompt, PROMPT_TOKENS);
    if (!rc) {
        rc = check_layers(model, args, ids, n);
        nvllm_free(ids);
    }
    nvllm_model_close(model);
    return rc;
}

/* Where a model's chat template comes from, and what it sees. Each test writes a small folder of its own. */
#define _GNU_SOURCE
#include "support/test.h"

#include "text/chat_template.h"

#include <ftw.h>
#include <sys/stat.h>

#define LIST_CONFIG                                                                                          \
    "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\", \"pad_token\": null, "                 \
    "\"chat_template\": "                                                                                    \
    "[{\"name\": \"default\", \"template\": \"D{{ bos_token }}{{ eos_token }}{{ pad_token }}\"}, "           \
    "{\"name\": \"tool_use\", \"template\": \"T{{ tools | length }}\"}]}"

static char *folder_new(void)
{
    char *folder = strdup("/tmp/chat_template_XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static void folder_write(const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/additional_chat_templates", folder);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void folder_delete(char *folder)
{
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(folder);
}

/* Opens, renders JSON messages and tools (NULL: none), compares. */
static void expect(const char *folder, const char *messages, const char *tools, const char *variables,
                   const char *wanted)
{
    nvllm_error err = {0};
    chat_template *ct;
    char *text;
    size_t len;
    if (chat_template_open(&ct, folder, &err)) fail_msg("%s", err.message);
    json_t *m = json_loads(messages, 0, NULL), *t = tools ? json_loads(tools, 0, NULL) : NULL;
    json_t *v = variables ? json_loads(variables, 0, NULL) : NULL;
    chat_template_input in = {.messages = m, .tools = t, .variables = v};
    if (chat_template_render(ct, &in, &text, &len, &err)) fail_msg("%s", err.message);
    assert_string_equal(text, wanted);
    assert_int_equal(len, strlen(wanted));
    free(text);
    json_decref(m);
    json_decref(t);
    json_decref(v);
    chat_template_close(ct);
}

static void chat_template_of_a_list_takes_default_or_tool_use(void **state)
{
    (void)state;
    char *folder = folder_new();
    folder_write(folder, "tokenizer_config.json", LIST_CONFIG);
    expect(folder, "[]", NULL, NULL, "D<s></s>");
    expect(folder, "[]", "[]", NULL, "D<s></s>");
    expect(folder, "[]", "[{\"name\": \"f\"}, {\"name\": \"g\"}]", NULL, "T2");
    folder_delete(folder);
}

static void chat_template_file_wins_over_tokenizer_config(void **state)
{
    (void)state;
    char *folder = folder_new();
    folder_write(folder, "tokenizer_config.json", "{\"bos_token\": \"<s>\", \"chat_template\": \"no\"}");
    folder_write(folder, "chat_template.jinja",
                 "{{ bos_token }}{{ messages[0].content }}{{ add_generation_prompt }}");
    folder_write(folder, "additional_chat_templates/tool_use.jinja", "tools");
    expect(folder, "[{\"role\": \"user\", \"content\": \"hi\"}]", NULL, NULL, "<s>hiTrue");
    expect(folder, "[]", "[1]", NULL, "tools");
    folder_delete(folder);
}

static void chat_template_of_additional_folder_is_the_last_resort(void **state)
{
    (void)state;
    char *folder = folder_new();
    folder_write(folder, "additional_chat_templates/default.jinja", "A");
    expect(folder, "[]", NULL, NULL, "A");
    folder_write(folder, "tokenizer_config.json", "{\"chat_template\": \"C\"}");
    expect(folder, "[]", NULL, NULL, "C");
    folder_delete(folder);
}

static void chat_template_special_tokens_map_fills_and_overrides_old_configs(void **state)
{
    (void)state;
    char *folder = folder_new();
    folder_write(folder, "chat_template.jinja", "{{ bos_token }}{{ eos_token }}");
    folder_write(folder, "special_tokens_map.json",
                 "{\"bos_token\": \"M\", \"eos_token\": {\"content\": \"E\"}}");
    folder_write(folder, "tokenizer_config.json", "{\"bos_token\": \"C\"}");
    expect(folder, "[]", NULL, NULL, "ME");
    folder_write(folder, "tokenizer_config.json", "{\"bos_token\": \"C\", \"added_tokens_decoder\": {}}");
    expect(folder, "[]", NULL, NULL, "CE");
    folder_delete(folder);
}

static void chat_template_variables_reach_the_template_and_override_tokens(void **state)
{
    (void)state;
    char *folder = folder_new();
    folder_write(folder, "tokenizer_config.json", "{\"bos_token\": \"C\"}");
    folder_write(folder, "chat_template.jinja",
                 "{{ enable_thinking }}{{ bos_token }}{{ tools is none }}{{ documents }}");
    expect(folder, "[]", NULL, "{\"enable_thinking\": false, \"bos_token\": \"V\"}", "FalseVTrueNone");
    folder_delete(folder);
}

static void chat_template_shows_reasoning_by_all_its_names(void **state)
{
    (void)state;
    char *folder = folder_new();
    folder_write(folder, "chat_template.jinja",
                 "{{ messages[0].reasoning_content }}{{ messages[0].thinking }}");
    expect(folder, "[{\"role\": \"assistant\", \"content\": \"x\", \"reasoning\": \"r\"}]", NULL, NULL, "rr");
    folder_delete(folder);
}

static void expect_open_failure(const char *folder, nvllm_status status, const char *part)
{
    nvllm_error err = {0};
    chat_template *ct = (chat_template *)&err;
    assert_int_equal(chat_template_open(&ct, folder, &err), status);
    assert_null(ct);
    if (!strstr(err.message, part)) fail_msg("%s", err.message);
}

static void chat_template_of_a_folder_without_one_is_unsupported(void **state)
{
    (void)state;
    char *folder = folder_new();
    expect_open_failure(folder, NVLLM_ERR_UNSUPPORTED, "no chat template");
    folder_write(folder, "tokenizer_config.json", "{\"chat_template\": null}");
    expect_open_failure(folder, NVLLM_ERR_UNSUPPORTED, "no chat template");
    folder_delete(folder);
}

static void chat_template_of_bad_files_names_what_is_wrong(void **state)
{
    (void)state;
    char *folder = folder_new();
    folder_write(folder, "tokenizer_config.json", "{\"chat_template\": ");
    expect_open_failure(folder, NVLLM_ERR_FORMAT, "tokenizer_config.json: line 1");
    folder_write(folder, "tokenizer_config.json", "{\"chat_template\": 5}");
    expect_open_failure(folder, NVLLM_ERR_FORMAT, "chat_template is neither");
    folder_write(folder, "tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\"}]}");
    expect_open_failure(folder, NVLLM_ERR_FORMAT, "chat_template[0] lacks");
    folder_write(folder, "tokenizer_config.json", "{\"chat_template\": \"{% if %}\"}");
    expect_open_failure(folder, NVLLM_ERR_TEMPLATE, "template line 1");
    folder_delete(folder);
}

static void chat_template_render_of_wrong_shapes_is_refused(void **state)
{
    (void)state;
    nvllm_error err = {0};
    chat_template *ct;
    char *text;
    size_t len;
    assert_int_equal(chat_template_from_source(&ct, "x", NULL, NULL, &err), NVLLM_OK);
    json_t *object = json_object(), *list = json_pack("[i]", 1), *empty = json_array();
    chat_template_input bad_messages = {.messages = object}, bad_message = {.messages = list},
                        bad_tools = {.messages = empty, .tools = object};
    assert_int_equal(chat_template_render(ct, &bad_messages, &text, &len, &err), NVLLM_ERR_FORMAT);
    assert_int_equal(chat_template_render(ct, &bad_message, &text, &len, &err), NVLLM_ERR_FORMAT);
    assert_non_null(strstr(err.message, "messages[0]"));
    assert_int_equal(chat_template_render(ct, &bad_tools, &text, &len, &err), NVLLM_ERR_FORMAT);
    assert_string_equal(chat_template_source(ct), "x");
    json_decref(object);
    json_decref(list);
    json_decref(empty);
    chat_template_close(ct);
    chat_template_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_template_of_a_list_takes_default_or_tool_use),
        cmocka_unit_test(chat_template_file_wins_over_tokenizer_config),
        cmocka_unit_test(chat_template_of_additional_folder_is_the_last_resort),
        cmocka_unit_test(chat_template_special_tokens_map_fills_and_overrides_old_configs),
        cmocka_unit_test(chat_template_variables_reach_the_template_and_override_tokens),
        cmocka_unit_test(chat_template_shows_reasoning_by_all_its_names),
        cmocka_unit_test(chat_template_of_a_folder_without_one_is_unsupported),
        cmocka_unit_test(chat_template_of_bad_files_names_what_is_wrong),
        cmocka_unit_test(chat_template_render_of_wrong_shapes_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

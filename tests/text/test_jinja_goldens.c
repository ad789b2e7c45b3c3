/* Real chat templates and the reference's renderings of them (shared data; skipped where it is missing). */
#include "support/test.h"

#include "base/file.h"
#include "text/jinja.h"

#define FOLDER TEST_SHARED "/chat-templates/"

static const jinja_options fixed_time = {
    .has_now = true,
    .now = {.tm_year = 124,
            .tm_mon = 6,
            .tm_mday = 26,
            .tm_hour = 12,
            .tm_wday = 5,
            .tm_yday = 207,
            .tm_isdst = -1},
};

static char *read_all(const char *path, size_t *len)
{
    char *text;
    nvllm_error err;
    if (file_read(&text, len, path, (size_t)64 << 20, &err)) fail_msg("%s", err.message);
    return text;
}

/* `wanted` is {text} or {error: "Class: message"}; a TemplateError's message must be in ours. 1: wrong. */
static int check(const char *name, const char *source, size_t source_len, const json_t *context,
                 const json_t *wanted)
{
    const json_t *text = json_object_get(wanted, "text");
    const char *error = json_string_value(json_object_get(wanted, "error"));
    jinja_template *t;
    nvllm_error err = {0};
    char *got = NULL;
    size_t len = 0;
    nvllm_status status = jinja_compile(&t, source, source_len, &err);
    if (!status) status = jinja_render(t, context, &fixed_time, &got, &len, &err);
    bool ok =
        text ? !status && len == json_string_length(text) && memcmp(got, json_string_value(text), len) == 0
             : status && (strncmp(error, "TemplateError: ", 15) || strstr(err.message, error + 15));
    if (!ok) print_error("%s: got %s\n", name, status ? err.message : got);
    jinja_free(t);
    free(got);
    return !ok;
}

static int check_template(const char *key, const json_t *results, json_t *contexts)
{
    char path[1024];
    size_t len;
    const char *slash = strchr(key, '/'), *name;
    json_t *wanted;
    int bad = 0;
    assert_non_null(slash);
    snprintf(path, sizeof path, FOLDER "%.*s__%s", (int)(slash - key), key, slash + 1);
    char *source = read_all(path, &len);
    json_object_foreach((json_t *)results, name, wanted)
    {
        snprintf(path, sizeof path, "%s, %s", key, name);
        bad += check(path, source, len, json_object_get(contexts, name), wanted);
    }
    free(source);
    return bad;
}

static void jinja_of_real_templates_renders_as_the_reference(void **state)
{
    (void)state;
    test_need(FOLDER "goldens.json");
    json_t *goldens = json_load_file(FOLDER "goldens.json", 0, NULL), *entry;
    assert_non_null(goldens);
    const char *key;
    int bad = 0;
    json_object_foreach(json_object_get(goldens, "templates"), key, entry)
    {
        bad += check_template(key, json_object_get(entry, "results"), json_object_get(goldens, "contexts"));
    }
    json_decref(goldens);
    assert_int_equal(bad, 0);
}

/* jansson refuses NUL in keys: the file's NULs become \u0001, in contexts and expected texts alike. */
static void jinja_of_unit_templates_renders_as_the_reference(void **state)
{
    (void)state;
    test_need(FOLDER "unit_goldens.json");
    size_t len;
    char *text = read_all(FOLDER "unit_goldens.json", &len);
    for (char *at = text; (at = strstr(at, "u0000")); at++) at[4] = '1';
    json_t *goldens = json_loadb(text, len, 0, NULL), *c;
    assert_non_null(goldens);
    const char *name;
    int bad = 0;
    json_object_foreach(goldens, name, c)
    {
        const json_t *source = json_object_get(c, "template");
        bad += check(name, json_string_value(source), json_string_length(source),
                     json_object_get(c, "context"), c);
    }
    json_decref(goldens);
    free(text);
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jinja_of_real_templates_renders_as_the_reference),
        cmocka_unit_test(jinja_of_unit_templates_renders_as_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

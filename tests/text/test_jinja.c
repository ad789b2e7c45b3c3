/* The Jinja engine against what the reference renders for our own small templates (tests/fixtures/jinja, made by
 * tools/make_jinja_fixtures.py), and its limits. */
#include "support/test.h"

#include "base/file.h"
#include "text/jinja.h"

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

typedef struct {
    nvllm_status status;
    nvllm_error err;
    char *text;
    size_t len;
} outcome;

static outcome render(const char *source, size_t len, const json_t *context, const jinja_options *opt)
{
    outcome o = {0};
    jinja_template *t;
    o.status = jinja_compile(&t, source, len, &o.err);
    if (!o.status) o.status = jinja_render(t, context, opt, &o.text, &o.len, &o.err);
    jinja_free(t);
    return o;
}

static void expect_text(const char *source, const json_t *context, const char *wanted)
{
    outcome o = render(source, strlen(source), context, &fixed_time);
    if (o.status) fail_msg("%s\n%s", source, o.err.message);
    assert_string_equal(o.text, wanted);
    free(o.text);
}

static void expect_failure(const char *source, nvllm_status status, const char *part)
{
    outcome o = render(source, strlen(source), NULL, NULL);
    if (o.status != status || !strstr(o.err.message, part)) {
        fail_msg("%s: status %d, \"%s\"", source, (int)o.status, o.err.message);
    }
    assert_null(o.text);
    assert_int_equal(o.err.code, status);
}

static int check_case(const json_t *c, const json_t *context)
{
    const json_t *source = json_object_get(c, "template"), *text = json_object_get(c, "text");
    outcome o = render(json_string_value(source), json_string_length(source), context, &fixed_time);
    bool ok = text ? !o.status && o.len == json_string_length(text) &&
                         memcmp(o.text, json_string_value(text), o.len) == 0
                   : o.status != NVLLM_OK;
    if (!ok) {
        print_error("template: %s\nwanted:   %s\ngot:      %s\n", json_string_value(source),
                    text ? json_string_value(text) : json_string_value(json_object_get(c, "error")),
                    o.status ? o.err.message : o.text);
    }
    free(o.text);
    return !ok;
}

static void jinja_of_fixture_templates_renders_as_the_reference(void **state)
{
    (void)state;
    json_error_t where;
    json_t *fixture = json_load_file(TEST_FIXTURES "/jinja/cases.json", JSON_ALLOW_NUL, &where);
    if (!fixture) fail_msg("cases.json: %s", where.text);
    const json_t *cases = json_object_get(fixture, "cases"), *c;
    int bad = 0;
    size_t i;
    assert_true(json_array_size(cases) >= 120);
    json_array_foreach(cases, i, c) bad += check_case(c, json_object_get(fixture, "context"));
    json_decref(fixture);
    assert_int_equal(bad, 0);
}

static void jinja_raise_exception_fails_with_its_message(void **state)
{
    (void)state;
    expect_failure("a\n{{ raise_exception('roles must ' ~ 'alternate') }}", NVLLM_ERR_TEMPLATE,
                   "roles must alternate");
    expect_failure("a\n{{ raise_exception('x') }}", NVLLM_ERR_TEMPLATE, "line 2");
}

static void jinja_of_undefined_use_names_the_variable(void **state)
{
    (void)state;
    expect_failure("{{ foo.bar }}", NVLLM_ERR_TEMPLATE, "'foo' is undefined");
    expect_failure("{{ {}.a.b }}", NVLLM_ERR_TEMPLATE, "'dict object' has no attribute 'a'");
    expect_failure("{{ [].append(1) }}", NVLLM_ERR_TEMPLATE, "is unsafe");
}

static void jinja_integer_overflow_is_an_error(void **state)
{
    (void)state;
    expect_failure("{{ 9223372036854775807 + 1 }}", NVLLM_ERR_TEMPLATE, "overflow");
    expect_failure("{{ 3037000500 * 3037000500 }}", NVLLM_ERR_TEMPLATE, "overflow");
    expect_failure("{{ (-9223372036854775807 - 1) // -1 }}", NVLLM_ERR_TEMPLATE, "overflow");
    expect_failure("{{ -(-9223372036854775807 - 1) }}", NVLLM_ERR_TEMPLATE, "overflow");
    expect_failure("{{ 2 ** 63 }}", NVLLM_ERR_TEMPLATE, "overflow");
    expect_failure("{{ 9223372036854775808 }}", NVLLM_ERR_TEMPLATE, "64-bit");
}

static void jinja_of_hostile_templates_stops_at_a_limit(void **state)
{
    (void)state;
    static const char *const templates[] = {
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(s='a') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{{ range(1000000000) | list }}",
        "{{ 'a' * 9000000000000 }}",
        "{{ [1] * 9000000000000 }}",
        "{{ 'a' | center(9000000000000) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ [1] | tojson(indent=99999999999) }}",
        "{% set ns = namespace(t=[]) %}{% for i in range(9999) %}{% set ns.t = [ns.t] %}{% endfor %}{{ ns.t "
        "}}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace(g=[1]) %}{% for i in range(9999) %}{% set ns.g = ns.g | map('string') %}{% "
        "endfor %}"
        "{{ ns.g | list }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ [1] | batch(1000000000, 0) | list }}",
        "{% set a = 'a' * 3000000 %}{% set b = 'a' * 1000000 ~ 'b' %}{% for i in range(1000) %}{{ b in a "
        "}}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        expect_failure(templates[i], NVLLM_ERR_LIMIT, "the template was stopped at line 1: ");
    }
}

static void jinja_compile_of_deep_nesting_stops_at_a_limit(void **state)
{
    (void)state;
    static const char *const pieces[] = {"(", "[", "not ", "-", "{% if 1 %}", "1 if 0 else "};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        size_t n = strlen(pieces[i]), count = 100000;
        char *source = malloc(n * count + 4);
        memcpy(source, "{{ ", 3);
        for (size_t k = 0; k < count; k++) memcpy(source + 3 + k * n, pieces[i], n);
        size_t skip = pieces[i][0] == '{' ? 3 : 0;
        outcome o = render(source + skip, 3 + n * count - skip, NULL, NULL);
        assert_int_equal(o.status, NVLLM_ERR_LIMIT);
        free(source);
    }
}

static void jinja_options_bound_steps_output_and_memory(void **state)
{
    (void)state;
    static const char loop[] = "{% for i in range(1000) %}x{% endfor %}";
    static const char list[] = "{{ range(1000) | list | length }}";
    const jinja_options steps = {.max_steps = 500}, output = {.max_output = 999},
                        memory = {.max_memory = 1000}, enough = {.max_output = 1000};
    assert_int_equal(render(loop, strlen(loop), NULL, &steps).status, NVLLM_ERR_LIMIT);
    assert_int_equal(render(loop, strlen(loop), NULL, &output).status, NVLLM_ERR_LIMIT);
    assert_int_equal(render(list, strlen(list), NULL, &memory).status, NVLLM_ERR_LIMIT);
    outcome o = render(loop, strlen(loop), NULL, &enough);
    assert_int_equal(o.status, NVLLM_OK);
    assert_int_equal(o.len, 1000);
    free(o.text);
}

static void jinja_compile_of_bad_source_names_the_line(void **state)
{
    (void)state;
    expect_failure("a\nb\n{% if %}", NVLLM_ERR_TEMPLATE, "template line 3: ");
    expect_failure("{{ 'x' | nosuchfilter }}", NVLLM_ERR_TEMPLATE, "no filter named 'nosuchfilter'");
    expect_failure("{% include 'x' %}", NVLLM_ERR_TEMPLATE, "'include'");
    expect_failure("\xff", NVLLM_ERR_TEMPLATE, "UTF-8");
}

static void jinja_strings_count_in_code_points(void **state)
{
    (void)state;
    json_t *context = json_pack("{s:s}", "s", "h\xc3\xa9\xf0\x9f\xa4\x97x");
    expect_text("{{ s | length }}{{ s[1] }}{{ s[-2] }}{{ s[::-1] }}{{ s.find('x') }}{{ s.upper() }}", context,
                "4\xc3\xa9\xf0\x9f\xa4\x97x\xf0\x9f\xa4\x97\xc3\xa9h3H\xc3\x89\xf0\x9f\xa4\x97X");
    json_decref(context);
}

static void jinja_render_of_a_nul_keeps_the_length(void **state)
{
    (void)state;
    outcome o = render("{{ 'a\\x00b' }}", 14, NULL, NULL);
    assert_int_equal(o.status, NVLLM_OK);
    assert_int_equal(o.len, 3);
    assert_memory_equal(o.text, "a\0b", 4);
    free(o.text);
}

static void jinja_strftime_now_uses_the_given_time(void **state)
{
    (void)state;
    expect_text("{{ strftime_now('%d %b %Y, %H:%M') }}", NULL, "26 Jul 2024, 12:00");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jinja_of_fixture_templates_renders_as_the_reference),
        cmocka_unit_test(jinja_raise_exception_fails_with_its_message),
        cmocka_unit_test(jinja_of_undefined_use_names_the_variable),
        cmocka_unit_test(jinja_integer_overflow_is_an_error),
        cmocka_unit_test(jinja_of_hostile_templates_stops_at_a_limit),
        cmocka_unit_test(jinja_compile_of_deep_nesting_stops_at_a_limit),
        cmocka_unit_test(jinja_options_bound_steps_output_and_memory),
        cmocka_unit_test(jinja_compile_of_bad_source_names_the_line),
        cmocka_unit_test(jinja_strings_count_in_code_points),
        cmocka_unit_test(jinja_render_of_a_nul_keeps_the_length),
        cmocka_unit_test(jinja_strftime_now_uses_the_given_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

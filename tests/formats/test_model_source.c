/* MODEL names against a Hugging Face cache made here. */
#define _GNU_SOURCE
#include "support/test.h"

#include "base/buffer.h"
#include "base/file.h"
#include "formats/model_source.h"

#include <sys/stat.h>

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

static char cache[] = "/tmp/nvllm_cache_XXXXXX";

static void make_dirs(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
}

static void write_file(const char *name, const char *text)
{
    char *path = file_join(cache, name);
    make_dirs(path);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

static int make_cache(void **state)
{
    (void)state;
    if (!mkdtemp(cache)) return -1;
    write_file("models--org--name/refs/main", COMMIT "\n");
    write_file("models--org--name/refs/refs/pr/1", "feed");
    write_file("models--org--name/snapshots/" COMMIT "/config.json", "{}");
    write_file("models--org--name/snapshots/feed/config.json", "{}");
    write_file("models--gpt2/refs/main", COMMIT);
    write_file("models--gpt2/snapshots/" COMMIT "/config.json", "{}");
    write_file("models--org--quants/refs/main", COMMIT);
    write_file("models--org--quants/snapshots/" COMMIT "/m.gguf", "GGUF");
    write_file("two/a.gguf", "GGUF");
    write_file("two/b.gguf", "GGUF");
    write_file("empty/readme", "");
    return 0;
}

static int remove_cache(void **state)
{
    (void)state;
    buffer b = {0};
    buffer_printf(&b, "rm -r '%s'", cache);
    int rc = system(b.data);
    buffer_free(&b);
    return rc;
}

static void check_found(const char *model, model_kind kind, const char *relative)
{
    model_source source;
    nvllm_error err = {0};
    if (model_source_resolve_in(&source, model, cache, &err)) fail_msg("%s", err.message);
    char *real = realpath(cache, NULL), *wanted = file_join(real, relative);
    assert_string_equal(source.path, wanted);
    assert_int_equal(source.kind, kind);
    free(real);
    free(wanted);
    model_source_free(&source);
}

static void check_refused(const char *model, const char *sentence)
{
    model_source source;
    nvllm_error err = {0};
    assert_int_not_equal(model_source_resolve_in(&source, model, cache, &err), NVLLM_OK);
    assert_null(source.path);
    if (!strstr(err.message, sentence)) fail_msg("%s\nlacks: %s", err.message, sentence);
}

static void source_of_cached_name_is_its_snapshot(void **state)
{
    (void)state;
    check_found("org/name", MODEL_HF_FOLDER, "models--org--name/snapshots/" COMMIT);
    check_found("org/name@main", MODEL_HF_FOLDER, "models--org--name/snapshots/" COMMIT);
    check_found("org/name@" COMMIT, MODEL_HF_FOLDER, "models--org--name/snapshots/" COMMIT);
    check_found("org/name@refs/pr/1", MODEL_HF_FOLDER, "models--org--name/snapshots/feed");
    check_found("gpt2", MODEL_HF_FOLDER, "models--gpt2/snapshots/" COMMIT);
    check_found("org/quants", MODEL_GGUF, "models--org--quants/snapshots/" COMMIT "/m.gguf");
}

static void source_of_path_is_that_path(void **state)
{
    (void)state;
    char *folder = file_join(cache, "models--gpt2/snapshots/" COMMIT), *file = file_join(cache, "two/a.gguf");
    char *two = file_join(cache, "two"), *empty = file_join(cache, "empty"),
         *missing = file_join(cache, "no.gguf");
    char *config = file_join(cache, "models--gpt2/snapshots/" COMMIT "/config.json");
    check_found(folder, MODEL_HF_FOLDER, "models--gpt2/snapshots/" COMMIT);
    check_found(file, MODEL_GGUF, "two/a.gguf");
    check_refused(two, "holds 2 .gguf files: name one of them");
    check_refused(empty, "a folder with neither config.json nor a .gguf file");
    check_refused(missing, "no such file");
    check_refused(config, "name the folder that holds this file");
    free(folder);
    free(file);
    free(two);
    free(empty);
    free(missing);
    free(config);
}

static void source_not_found_says_where_it_looked(void **state)
{
    (void)state;
    model_source source;
    nvllm_error err = {0};
    check_refused("org/other", "models--org--other");
    check_refused("org/other", cache);
    check_refused("org/name@dev", "nor revision dev in");
    check_refused("./org/name", "not of the form org/name[@revision]");
    check_refused("../../nothing-here", "not of the form");
    check_refused("org/name@../x", "not of the form");
    check_refused("org/..", "not of the form");
    check_refused("org/name@", "not of the form");
    check_refused("a/b/c", "not of the form");
    check_refused("", "not of the form");
    assert_int_equal(model_source_resolve_in(&source, "org/name", NULL, &err), NVLLM_ERR_IO);
    assert_non_null(strstr(err.message, "HF_HOME"));
}

static void check_cache_dir(const char *wanted)
{
    char *dir = model_cache_dir();
    if (wanted)
        assert_string_equal(dir, wanted);
    else
        assert_null(dir);
    free(dir);
}

static void cache_dir_follows_the_variables_in_order(void **state)
{
    (void)state;
    static const char *const names[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME",
                                        "HOME"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
    check_cache_dir(NULL);
    setenv("HOME", "/h", 1);
    check_cache_dir("/h/.cache/huggingface/hub");
    setenv("XDG_CACHE_HOME", "/x", 1);
    check_cache_dir("/x/huggingface/hub");
    setenv("HF_HOME", "/f", 1);
    check_cache_dir("/f/hub");
    setenv("HUGGINGFACE_HUB_CACHE", "/g", 1);
    check_cache_dir("/g");
    setenv("HF_HUB_CACHE", "~/hub", 1);
    check_cache_dir("/h/hub");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(source_of_cached_name_is_its_snapshot),
        cmocka_unit_test(source_of_path_is_that_path),
        cmocka_unit_test(source_not_found_says_where_it_looked),
        cmocka_unit_test(cache_dir_follows_the_variables_in_order),
    };
    return cmocka_run_group_tests(tests, make_cache, remove_cache);
}

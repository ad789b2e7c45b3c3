/* nano-vllm inspect: the library's JSON documents about a model, as they are or as tables.
 *
 * The tables are made from the documents' own shape: an object is a list of names and values, a list of objects a
 * table whose columns are the first object's keys. So a new field shows up without a change here. */
#define _GNU_SOURCE
#include "cli.h"
#include "session.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 8, COLUMNS_MAX = 16, CELL = 128 };

static void append(char cell[CELL], const char *text)
{
    size_t have = strlen(cell);
    snprintf(cell + have, CELL - have, "%s", text);
}

/* One value in few letters, cut at CELL-1 bytes: a shape as [2,3], an object as its values without their names (true
 * as the name, false as nothing), a list of objects separated by commas. */
static void append_value(char cell[CELL], const char *name, json_t *value, int depth)
{
    const char *key;
    json_t *item;
    size_t i;
    if (json_is_string(value))
        append(cell, json_string_value(value));
    else if (json_is_boolean(value) && name)
        append(cell, json_is_true(value) ? name : "");
    else if (json_is_object(value) && depth < DEPTH_MAX) {
        json_object_foreach(value, key, item)
        {
            if (*cell && cell[strlen(cell) - 1] != ' ' && !json_is_false(item)) append(cell, " ");
            append_value(cell, key, item, depth + 1);
        }
    } else if (json_is_array(value) && depth < DEPTH_MAX && json_is_object(json_array_get(value, 0))) {
        json_array_foreach(value, i, item)
        {
            if (i) append(cell, ", ");
            append_value(cell, NULL, item, depth + 1);
        }
    } else if (value) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
        append(cell, text ? text : "");
        free(text);
    }
}

static void format_cell(char cell[CELL], json_t *value)
{
    cell[0] = 0;
    append_value(cell, NULL, value, 0);
}

/* Widest cell of a column, its heading included. */
static int column_width(const json_t *rows, const char *key)
{
    size_t width = strlen(key), i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        char cell[CELL];
        format_cell(cell, json_object_get(row, key));
        if (strlen(cell) > width) width = strlen(cell);
    }
    return (int)width;
}

typedef struct {
    const char *key;
    int width; /* as printf takes it: negative for text, which stands at the left */
} column;

static int find_columns(column columns[COLUMNS_MAX], json_t *rows)
{
    const char *key;
    json_t *value;
    int n = 0;
    json_object_foreach(json_array_get(rows, 0), key, value)
    {
        if (n == COLUMNS_MAX) break;
        int width = column_width(rows, key);
        columns[n++] = (column){key, json_is_number(value) ? width : -width};
    }
    if (n && columns[n - 1].width < 0) columns[n - 1].width = 0; /* no blanks at the end of a line */
    return n;
}

static void print_rows(json_t *rows, int indent)
{
    column columns[COLUMNS_MAX];
    int n = find_columns(columns, rows);
    size_t i;
    json_t *row;
    printf("%*s", indent, "");
    for (int c = 0; c < n; c++) printf("%*s%s", columns[c].width, columns[c].key, c + 1 < n ? "  " : "\n");
    json_array_foreach(rows, i, row)
    {
        printf("%*s", indent, "");
        for (int c = 0; c < n; c++) {
            char cell[CELL];
            format_cell(cell, json_object_get(row, columns[c].key));
            printf("%*s%s", columns[c].width, cell, c + 1 < n ? "  " : "\n");
        }
    }
}

static bool is_table(const json_t *value)
{
    return json_is_array(value) && json_is_object(json_array_get(value, 0));
}

static void print_object(json_t *object, int indent, int depth)
{
    const char *key;
    json_t *value;
    int width = 0;
    json_object_foreach(object, key, value)
    {
        if (!json_is_object(value) && !is_table(value) && (int)strlen(key) > width) width = (int)strlen(key);
    }
    json_object_foreach(object, key, value)
    {
        char cell[CELL];
        if (depth < DEPTH_MAX && json_is_object(value)) {
            printf("%*s%s\n", indent, "", key);
            print_object(value, indent + 2, depth + 1);
        } else if (is_table(value)) {
            printf("%*s%s\n", indent, "", key);
            print_rows(value, indent + 2);
        } else {
            format_cell(cell, value);
            printf("%*s%-*s  %s\n", indent, "", width, key, cell);
        }
    }
}

static int print_document(const char *text)
{
    json_error_t where;
    json_t *document = json_loads(text, JSON_DECODE_ANY, &where);
    if (!document) return report_sentence("inspect: the library's answer is not JSON: %s", where.text);
    if (is_table(document))
        print_rows(document, 0);
    else if (json_is_object(document))
        print_object(document, 0, 0);
    else
        puts(text);
    json_decref(document);
    return CLI_OK;
}

static json_t *summary_json(const nvllm_model_info *m)
{
    return json_pack("{s:s?, s:s?, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:b, s:b}",
                     "source", m->source, "architecture", m->architecture, "layers", (int)m->layers,
                     "model_dim", (int)m->model_dim, "heads", (int)m->heads, "kv_heads", (int)m->kv_heads,
                     "head_dim", (int)m->head_dim, "ff_dim", (int)m->ff_dim, "vocab_size", (int)m->vocab_size,
                     "max_context", (int)m->max_context, "parameters", (json_int_t)m->parameters,
                     "weight_bytes", (json_int_t)m->weight_bytes, "bytes_per_token",
                     (json_int_t)m->bytes_per_token, "flops_per_token", (json_int_t)m->flops_per_token,
                     "has_tokenizer", m->has_tokenizer, "has_chat_template", m->has_chat_template);
}

/* In memory of the caller's (free). */
static char *summary_text(const nvllm_model *model)
{
    nvllm_model_info info = nvllm_model_describe(model);
    json_t *summary = summary_json(&info);
    char *text = json_dumps(summary, JSON_INDENT(2));
    json_decref(summary);
    return text;
}

static int print_text(const char *text, bool json)
{
    if (!json) return print_document(text);
    fputs(text, stdout);
    if (*text && text[strlen(text) - 1] != '\n') putchar('\n');
    return CLI_OK;
}

static int inspect_summary(const nvllm_model *model, bool json)
{
    char *text = summary_text(model);
    int rc = text ? print_text(text, json) : report_sentence("out of memory");
    free(text);
    return rc;
}

/* The part "memory", with what these options would take of the device. */
static nvllm_status plan_memory(const nvllm_model *model, const cli_args *args, char **text, nvllm_error *err)
{
    nvllm_engine_options options = {.device = args->device,
                                    .isa = args->isa,
                                    .threads = (int32_t)args->threads.value,
                                    .context = (int32_t)args->context.value,
                                    .max_sequences = (int32_t)args->max_sequences.value,
                                    .kv_bytes = args->kv_memory.value,
                                    .fusion = (nvllm_fusion)args->fusion};
    return nvllm_engine_plan(model, &options, text, err);
}

static int inspect_part(const nvllm_model *model, const cli_args *args)
{
    nvllm_error err = {0};
    char *text = NULL;
    nvllm_status st = strcmp(args->argument, "memory") == 0
                          ? plan_memory(model, args, &text, &err)
                          : nvllm_model_inspect(model, args->argument, &text, &err);
    if (st) return report_failure(&err);
    int rc = print_text(text, args->json);
    nvllm_free(text);
    return rc;
}

int command_inspect(const cli_args *args)
{
    nvllm_model *model = NULL;
    int rc = open_model(&model, args, NULL);
    if (!rc) rc = args->argument ? inspect_part(model, args) : inspect_summary(model, args->json);
    if (!rc) rc = finish_output();
    nvllm_model_close(model);
    return rc;
}

/* Batch driver for tools/compare_tokenizers.py: many strings through one tokenizer.
 *
 *   tok_driver TOKENIZER FLAGS < records > records
 * Input: for each text, its length (uint32, little endian) and its bytes. FLAGS are tokenizer.h's.
 * Output: for each text, the count of ids (uint32), the ids (int32), the length of the text that the ids give
 * back (uint32) and that text, made by the streaming detokenizer and checked against tokenizer_decode.
 * TOKENIZER: what tokenizer_open takes, or a GGUF.
 * An error of one text is written as count 0xFFFFFFFF, length and sentence. */
#include "api/handles.h"
#include "text/detokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_block(uint32_t count, const void *data, size_t size)
{
    fwrite(&count, sizeof count, 1, stdout);
    fwrite(data, size, count, stdout);
}

static nvllm_status stream(const tokenizer *t, const int32_t *ids, size_t count, unsigned flags, buffer *out,
                           nvllm_error *err)
{
    detokenizer *d;
    nvllm_status st = detokenizer_open(&d, t, flags, err);
    for (size_t i = 0; st == NVLLM_OK && i < count; i++) st = detokenizer_push(d, ids[i], out, err);
    if (st == NVLLM_OK) st = detokenizer_finish(d, out, err);
    detokenizer_close(d);
    return st;
}

static void answer(const tokenizer *t, const char *text, size_t len, unsigned flags)
{
    int32_t *ids;
    size_t count;
    nvllm_error err;
    buffer whole = {0}, streamed = {0};
    nvllm_status st = tokenizer_encode(t, text, len, flags, &ids, &count, &err);
    if (st == NVLLM_OK) st = tokenizer_decode(t, ids, count, flags, &whole, &err);
    if (st == NVLLM_OK) st = stream(t, ids, count, flags, &streamed, &err);
    if (st == NVLLM_OK &&
        (whole.len != streamed.len || (whole.len && memcmp(whole.data, streamed.data, whole.len))))
        st = error_set(&err, NVLLM_ERR_FORMAT, "the stream and the whole differ");
    if (st != NVLLM_OK) {
        fwrite("\xFF\xFF\xFF\xFF", 4, 1, stdout);
        write_block((uint32_t)strlen(err.message), err.message, 1);
    } else {
        write_block((uint32_t)count, ids, sizeof *ids);
        write_block((uint32_t)whole.len, whole.data, 1);
    }
    free(ids);
    buffer_free(&whole);
    buffer_free(&streamed);
}

static nvllm_status open_any(tokenizer **out, const char *path, nvllm_error *err)
{
    size_t len = strlen(path);
    if (len < 5 || strcmp(path + len - 5, ".gguf") != 0) return tokenizer_open(out, path, err);
    gguf *file;
    nvllm_status st = gguf_open(&file, path, err);
    if (st == NVLLM_OK) {
        st = tokenizer_of_gguf(out, file, err);
        gguf_close(file);
    }
    return st;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: tok_driver TOKENIZER FLAGS < records > records\n");
        return 2;
    }
    tokenizer *t;
    nvllm_error err;
    if (open_any(&t, argv[1], &err) != NVLLM_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    uint32_t len;
    while (fread(&len, sizeof len, 1, stdin) == 1) {
        char *text = malloc((size_t)len + 1);
        if (!text || fread(text, 1, len, stdin) != len) return 1;
        answer(t, text, len, (unsigned)atoi(argv[2]));
        free(text);
    }
    tokenizer_close(t);
    return 0;
}

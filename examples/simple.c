/* Continues a text with a model, through the public interface alone.
 *
 *     cc simple.c -o simple $(pkg-config --cflags --libs nanovllm)
 *     ./simple models/demo "Once upon a time" */
#include <nanovllm.h>
#include <stdio.h>

/* Prints the answer as it comes; 0 when it ended well. */
static int print_answer(nvllm_engine *engine)
{
    nvllm_event event;
    do {
        if (!nvllm_poll(engine, &event, 1, -1)) return 1;
        if (event.kind == NVLLM_EVENT_ERROR)
            fprintf(stderr, "%s\n", event.error);
        else
            fwrite(event.text, 1, event.text_len, stdout);
        fflush(stdout);
    } while (event.kind == NVLLM_EVENT_TOKEN);
    putchar('\n');
    return event.kind == NVLLM_EVENT_ERROR;
}

int main(int argc, char **argv)
{
    nvllm_model *model = NULL;
    nvllm_engine *engine = NULL;
    nvllm_error err = {0};
    int rc = 1;
    if (argc != 3) return fprintf(stderr, "usage: simple MODEL PROMPT\n"), 2;
    if (nvllm_model_open(&model, &(nvllm_model_options){.source = argv[1]}, &err)) goto done;
    if (nvllm_engine_open(&engine, model, NULL, &err)) goto done;

    nvllm_request request = nvllm_request_defaults(model);
    request.text = argv[2];
    request.text_flags = NVLLM_ADD_SPECIAL;
    request.max_tokens = 64;
    if (nvllm_submit(engine, &request, NULL, &err)) goto done;
    rc = print_answer(engine);
done:
    if (err.code) fprintf(stderr, "%s\n", err.message);
    nvllm_engine_close(engine);
    nvllm_model_close(model);
    return rc;
}

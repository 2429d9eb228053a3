/* fuzz_scheduler.c: any bytes as a scheduler_config.json: an error with a text, or a scheduler that
 * runs, under the class that the file names and under another one. */
#include "bytes_file.h"
#include "scheduler.h"

#include <string.h>

/* As many steps as the model was trained with, at most `steps`; more than that is refused. */
static void run(scheduler *s, int64_t steps, float eta)
{
    ATTN_ERROR_ON(err, 256);
    size_t count = 0;
    while (steps > 0 && scheduler_set_timesteps(s, steps, &err) != ATTN_OK)
        steps--;
    if (!steps)
        return;
    const float *timesteps = scheduler_timesteps(s, &count);
    float x[4] = {1, -1, 0.5f, 0}, e[4] = {0.1f, 0.2f, -0.3f, 0}, x0[4], noise[4], out[4];
    for (size_t i = 0; i < count && timesteps; i++) {
        scheduler_call call = {i, e, x, scheduler_wants_noise(s, i, eta) ? e : NULL, eta, 4, 2};
        scheduler_scale_model_input(s, i, x, out, 4);
        scheduler_predict(s, i, e, x, x0, noise, 4);
        scheduler_add_noise(s, i, x0, noise, out, 4);
        (void)scheduler_completes_step(s, i);
        if (scheduler_step(s, &call, x, &err) != ATTN_OK)
            break;
    }
}

static void open_as(const char *path, const char *class_name, int64_t steps)
{
    ATTN_ERROR_ON(err, 256);
    scheduler *s = NULL;
    if (scheduler_open(path, class_name, &s, &err) == ATTN_OK) {
        if (!scheduler_name(s))
            abort();
        run(s, steps, 0);
        run(s, 3, 1); /* whatever the first run left must not matter */
    } else if (!err_text[0]) {
        abort();
    }
    scheduler_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t classes = 0, sum = size;
    while (scheduler_class_name(classes))
        classes++;
    for (size_t i = 0; i < size; i++)
        sum += data[i];
    struct bytes_file f = bytes_file_open(data, size);
    open_as(f.path, NULL, 5);
    open_as(f.path, scheduler_class_name(sum % classes), (int64_t)(1 + sum % 40));
    bytes_file_close(&f);
    return 0;
}

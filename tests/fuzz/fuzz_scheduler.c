/* fuzz_scheduler.c: any bytes as a scheduler_config.json: an error with a text, or a scheduler that
 * runs. */
#include "bytes_file.h"
#include "scheduler.h"

#include <string.h>

/* As many steps as the model was trained with, at most five; more than that is refused. */
static void run(scheduler *s, float eta)
{
    ATTN_ERROR_ON(err, 256);
    size_t count = 0;
    int64_t steps = 5;
    while (steps > 0 && scheduler_set_timesteps(s, steps, &err) != ATTN_OK)
        steps--;
    if (!steps || scheduler_set_timesteps(s, INT64_MAX, &err) == ATTN_OK)
        return;
    const int64_t *timesteps = scheduler_timesteps(s, &count);
    float x[4] = {1, -1, 0.5f, 0}, e[4] = {0.1f, 0.2f, -0.3f, 0}, out[4], noise[4];
    (void)scheduler_init_noise_sigma(s);
    for (size_t i = 0; i < count && timesteps; i++) {
        scheduler_call call = {i, e, x, scheduler_wants_noise(s, i, eta) ? e : NULL, eta, 4};
        scheduler_scale_model_input(s, i, x, out, 4);
        scheduler_predict(s, i, e, x, out, noise, 4);
        scheduler_add_noise(s, i, x, e, out, 4);
        if (scheduler_step(s, &call, x, &err) != ATTN_OK)
            break;
    }
    scheduler_call beyond = {count, e, x, NULL, 0, 4};
    if (scheduler_step(s, &beyond, x, &err) == ATTN_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATTN_ERROR_ON(err, 256);
    struct bytes_file f = bytes_file_open(data, size);
    scheduler *s = NULL;
    if (scheduler_open(f.path, NULL, &s, &err) == ATTN_OK) {
        if (!scheduler_name(s))
            abort();
        run(s, 0);
        run(s, 1);
    } else if (!err_text[0]) {
        abort();
    }
    scheduler_close(s);
    bytes_file_close(&f);
    return 0;
}

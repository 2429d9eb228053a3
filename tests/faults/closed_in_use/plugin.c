/* A run that lasts until the test lets it go on: a FIFO's name comes with the op. */
#include "plain.h"

#include <fcntl.h>
#include <unistd.h>

static char fifo[128];

static attn_status slow_create(const attn_host *host, const attn_device *device,
                               const attn_param *params, uint32_t n_params, attn_op **op,
                               attn_error *err)
{
    (void)snprintf(fifo, sizeof fifo, "%s", n_params ? params[0].text : "");
    return plain_create(host, device, params, n_params, op, err);
}

static attn_status slow_run(attn_op_plan *plan, const attn_op_call *c, attn_error *err)
{
    char byte;
    int fd = fifo[0] ? open(fifo, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)!read(fd, &byte, 1);
        close(fd);
    }
    return plain_run(plan, c, err);
}

const attn_op_api attn_op_v1 = {.head = PLAIN_HEAD("org.attnplug.test.bad", "1"),
                                .create = slow_create,
                                .destroy = plain_destroy,
                                .supports = plain_supports,
                                .prepare = plain_prepare,
                                .run = slow_run,
                                .release = plain_release};

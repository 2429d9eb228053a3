#include "pickle.h"

#include "attn_host.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int32_t ends_like_one(const char *path)
{
    static const char *const endings[] = {".ckpt", ".bin", ".pt", ".pth", ".pkl"};
    const size_t n = strlen(path);
    for (size_t i = 0; i < sizeof(endings) / sizeof(*endings); i++) {
        const size_t length = strlen(endings[i]);
        if (n > length && strcmp(path + n - length, endings[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

int32_t pickle_is(const char *path)
{
    unsigned char start[4] = {0};
    /* O_NONBLOCK: a pipe that nobody writes to would keep open() waiting. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const ssize_t n = fd >= 0 ? read(fd, start, sizeof(start)) : -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    if (n < (ssize_t)sizeof(start)) {
        return ends_like_one(path);
    }
    /* a zip archive's first record, or the PROTO opcode of pickle's protocols 2 to 5; a safetensors
     * header whose length begins with the same two bytes has zeros or its JSON after them */
    return memcmp(start, "PK\3\4", 4) == 0 ||
           (start[0] == 0x80 && start[1] >= 2 && start[1] <= 5 && ends_like_one(path));
}

attn_status pickle_refuse(const char *path, attn_error *err)
{
    return attn_fail(
        err, ATTN_UNSUPPORTED,
        "%s: a pickle, which is a program that runs when it is read, so it is not read here;"
        " where you trust it, convert it: python3 -c \"import sys, torch, safetensors.torch as s;"
        " d = torch.load(sys.argv[1], 'cpu', weights_only=True);"
        " d = d.get('state_dict', d.get('string_to_param', d));"
        " s.save_file({k: v.clone() for k, v in d.items() if torch.is_tensor(v)}, sys.argv[2])\""
        " %s OUT.safetensors",
        path, path);
}

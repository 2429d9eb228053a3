/* machine.c: processor, libraries, devices and plugin folders, as they are found here. */
#include "machine.h"
#include "cli.h"

#include "attn_layer.h"
#include "error.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* -- the processor ----------------------------------------------------------------------------- */

void machine_cpu_name(char *name, size_t capacity)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[512];
    (void)snprintf(name, capacity, "unknown processor");
    while (file && fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (value && strncmp(line, "model name", 10) == 0) {
            (void)snprintf(name, capacity, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
            break;
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

static int cores_allowed(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void cpu_print(void)
{
    char name[256];
    char about[256];
    machine_cpu_name(name, sizeof name);
    attn_computer_about(about, sizeof about);
    (void)printf("cpu      %s, cores allowed: %d\n         %s\n", name, cores_allowed(), about);
}

/* -- devices, asked through libraries that may be absent --------------------------------------- */

/* A function of a library; NULL where it has none of that name. */
static void (*function(void *library, const char *name))(void)
{
    void (*found)(void) = NULL;
    void *symbol = dlsym(library, name);
    memcpy(&found, &symbol, sizeof found); /* ISO C has no cast between the two */
    return found;
}

/* CUDA's driver, as cuda.h declares it: results are ints, 0 is success. */
static void cuda_print(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver) {
        (void)puts("cuda     no driver (libcuda.so.1)");
        return;
    }
    int (*init)(unsigned) = (int (*)(unsigned))function(driver, "cuInit");
    int (*version_get)(int *) = (int (*)(int *))function(driver, "cuDriverGetVersion");
    int (*count_get)(int *) = (int (*)(int *))function(driver, "cuDeviceGetCount");
    int (*name_get)(char *, int, int) =
        (int (*)(char *, int, int))function(driver, "cuDeviceGetName");
    int version = 0;
    int count = 0;
    if (!init || !version_get || !count_get || !name_get || version_get(&version)) {
        (void)puts("cuda     a driver that lacks what it should have");
    } else if (init(0) || count_get(&count)) {
        (void)printf("cuda     driver %d.%d, no device that it can use\n", version / 1000,
                     version % 1000 / 10);
    } else {
        (void)printf("cuda     driver %d.%d, devices: %d\n", version / 1000, version % 1000 / 10,
                     count);
    }
    for (int i = 0; i < count; i++) {
        char name[256] = "";
        (void)printf("         cuda:%d %s\n", i, name_get(name, sizeof name, i) ? "?" : name);
    }
    (void)dlclose(driver);
}

/* CANN's runtime: of its own name in new releases, in libascendcl.so in older ones. */
static void cann_print(void)
{
    static const char *const names[] = {"libacl_rt.so", "libascendcl.so"};
    const char *home = getenv("ASCEND_HOME_PATH");
    for (int i = 0; i < 2; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/lib64/%s", home ? home : "", names[i]);
        void *runtime = home && *home == '/' ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
        const char *found = runtime ? path : names[i];
        runtime = runtime ? runtime : dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (runtime) {
            int (*version_get)(int32_t *, int32_t *, int32_t *) =
                (int (*)(int32_t *, int32_t *, int32_t *))function(runtime, "aclrtGetVersion");
            int32_t v[3] = {0};
            if (version_get && version_get(&v[0], &v[1], &v[2]) == 0) {
                (void)printf("cann     runtime %d.%d.%d (%s)\n", v[0], v[1], v[2], found);
            } else {
                (void)printf("cann     runtime without a version (%s)\n", found);
            }
            return; /* it stays loaded: CANN's libraries do not survive dlclose */
        }
    }
    (void)puts("cann     no runtime (libacl_rt.so, libascendcl.so)");
}

/* -- plugins ----------------------------------------------------------------------------------- */

/* Folders in search order; their files stand together. */
static void plugins_print(void)
{
    attn_registry *registry = NULL;
    ATTN_ERROR_ON(err, 1024);
    if (attn_registry_open(NULL, &registry, &err)) {
        (void)printf("plugins  %s\n", err.text);
        return;
    }
    uint32_t n = attn_registry_count(registry);
    char folder[4096] = "";
    uint32_t usable = 0;
    uint32_t seen = 0;
    for (uint32_t i = 0; i <= n; i++) {
        attn_file_info info = {.size = sizeof info};
        size_t length = 0;
        if (i < n && attn_registry_file(registry, i, &info) == ATTN_OK) {
            const char *slash = strrchr(info.path, '/');
            length = slash ? (size_t)(slash - info.path) : 0;
        }
        bool same =
            i < n && seen && strlen(folder) == length && strncmp(folder, info.path, length) == 0;
        if (seen && !same) {
            (void)printf("plugins  %s (%u of %u files usable)\n", folder, usable, seen);
            seen = usable = 0;
        }
        if (i < n) {
            (void)snprintf(folder, sizeof folder, "%.*s", (int)length, info.path);
            usable += info.verdict == ATTN_VERDICT_OK;
            seen++;
        }
    }
    if (!n) {
        (void)puts("plugins  none found");
    }
    attn_registry_close(registry);
}

void machine_print(void)
{
    cpu_print();
    cuda_print();
    cann_print();
    plugins_print();
}

#include "table.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

void *table_symbol(const char *library, const char *name)
{
    char path[4096];
    const char *home = getenv("ASCEND_HOME_PATH");
    (void)snprintf(path, sizeof path, "%s%s%s", home ? home : "", home ? "/lib64/" : "", library);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = handle ? dlsym(handle, name) : NULL;
    if (!symbol) {
        (void)fprintf(stderr, "%s of %s: %s\n", name, path, dlerror());
        abort();
    }
    return symbol;
}

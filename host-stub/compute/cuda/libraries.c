#include "libraries.h"

#include <dlfcn.h>

#define TEXT_(x)           #x
#define TEXT(x)            TEXT_(x)
#define FILE_OF(name, abi) "lib" name ".so." TEXT(abi)

struct symbol {
    const char *name;
    void **to;
};

static attn_status file_open(const char *file, const char *what, void **out, attn_error *err)
{
    *out = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    return *out ? ATTN_OK
                : attn_fail(err, ATTN_UNSUPPORTED,
                            "device cuda: %s is missing: %s; expected it where the dynamic linker "
                            "looks (LD_LIBRARY_PATH)",
                            what, dlerror());
}

static attn_status symbols_find(void *file, const char *name, const struct symbol *symbols,
                                size_t n, attn_error *err)
{
    for (size_t i = 0; i < n; i++) {
        *symbols[i].to = dlsym(file, symbols[i].name);
        if (!*symbols[i].to)
            return attn_fail(err, ATTN_UNSUPPORTED, "device cuda: %s has no %s: too old", name,
                             symbols[i].name);
    }
    return ATTN_OK;
}

#define SYMBOL(function) {#function, (void **)&l->function},

attn_status cuda_libraries_open(struct cuda_libraries *l, attn_error *err)
{
    static const char blas_name[] = FILE_OF("cublasLt", CUBLAS_VER_MAJOR);
    static const char dnn_name[] = FILE_OF("cudnn", CUDNN_MAJOR);
    const struct symbol blas[] = {CUBLASLT_FUNCTIONS(SYMBOL)};
    const struct symbol dnn[] = {CUDNN_FUNCTIONS(SYMBOL)};
    attn_status status = file_open(blas_name, "cuBLAS", &l->blas_file, err);
    if (status == ATTN_OK)
        status = file_open(dnn_name, "cuDNN", &l->dnn_file, err);
    if (status == ATTN_OK)
        status = symbols_find(l->blas_file, blas_name, blas, sizeof blas / sizeof *blas, err);
    if (status == ATTN_OK)
        status = symbols_find(l->dnn_file, dnn_name, dnn, sizeof dnn / sizeof *dnn, err);
    return status;
}

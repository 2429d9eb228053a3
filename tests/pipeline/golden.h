/* golden.h: stored references and how far a result is from one. */
#ifndef ATTNPLUG_TESTS_PIPELINE_GOLDEN_H
#define ATTNPLUG_TESTS_PIPELINE_GOLDEN_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attn_host.h"
#include "safetensors.h"

static inline safetensors *golden_open(const char *folder, const char *name)
{
    ATTN_ERROR_ON(err, 512);
    char path[4096];
    safetensors *file = NULL;
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, name);
    if (safetensors_open(path, &file, &err)) {
        fail_msg("%s", err.text);
    }
    return file;
}

/* A tensor that has to be there; the name is a format. */
__attribute__((format(printf, 2, 3))) static inline const safetensors_tensor *
golden_get(const safetensors *file, const char *format, ...)
{
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const safetensors_tensor *found = safetensors_find(file, name);
    if (!found) {
        fail_msg("%s has no tensor %s", safetensors_path(file), name);
    }
    return found;
}

/* As it lies in the file. */
static inline attn_tensor tensor_view(const safetensors_tensor *t)
{
    attn_tensor view = {.data = (void *)t->data,
                        .device_type = ATTN_DEVICE_CPU,
                        .code = t->dtype.code,
                        .bits = t->dtype.bits,
                        .lanes = 1,
                        .rank = t->rank};
    int64_t stride = 1;
    for (uint32_t i = t->rank; i-- > 0;) {
        view.shape[i] = t->shape[i];
        view.stride[i] = stride;
        stride *= t->shape[i];
    }
    return view;
}

/* The plugins of one folder, whoever owns them; NULL, with the reason printed, where it fails. */
static inline attn_registry *plugins_open(const char *folder)
{
    ATTN_ERROR_ON(err, 512);
    attn_registry *registry = NULL;
    const attn_registry_options options = {.size = sizeof options,
                                           .flags =
                                               ATTN_REGISTRY_ONLY_PATHS | ATTN_REGISTRY_TRUST_ALL,
                                           .paths = &folder,
                                           .n_paths = 1};
    if (attn_registry_open(&options, &registry, &err)) {
        print_error("%s\n", err.text);
    }
    return registry;
}

/* Adds `more` to the text in `text`, as much as fits. */
static inline void text_append(char *text, size_t size, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", more);
}

/* |got - expected| / |expected|, both as vectors; NaN where anything is. */
static inline double relative_l2(const float *got, const float *expected, size_t n)
{
    double difference = 0;
    double norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += pow((double)got[i] - (double)expected[i], 2);
        norm += pow((double)expected[i], 2);
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

static inline double largest_difference(const float *got, const float *expected, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)expected[i]);
        largest = d > largest || isnan(d) ? d : largest;
        if (isnan(d)) {
            break;
        }
    }
    return largest;
}

#endif

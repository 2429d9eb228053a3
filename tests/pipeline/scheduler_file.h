/* scheduler_file.h: schedulers made from configurations that a test writes. */
#ifndef ATTNPLUG_TESTS_PIPELINE_SCHEDULER_FILE_H
#define ATTNPLUG_TESTS_PIPELINE_SCHEDULER_FILE_H

#include "golden.h"

#include <unistd.h>

#include <jansson.h>

#include "scheduler.h"

static char config_path[] = "/tmp/attnplug-scheduler-XXXXXX";

static inline int config_begin(void)
{
    int fd = mkstemp(config_path);
    return fd < 0 ? -1 : close(fd);
}

/* Writes the file that every test opens. */
static inline void config_put(const char *text)
{
    FILE *file = fopen(config_path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* The scheduler of a class and further options, '"key": value, ...' or "". */
static inline attn_status config_open(const char *class_name, const char *options, scheduler **s,
                                      attn_error *err)
{
    char text[2048];
    snprintf(text, sizeof text, "{\"_class_name\": \"%s\"%s%s}", class_name, *options ? ", " : "",
             options);
    config_put(text);
    return scheduler_open(config_path, NULL, s, err);
}

/* One that has to open, ready for a run. */
static inline scheduler *config_ready(const char *class_name, const char *options, int64_t steps)
{
    ATTN_ERROR_ON(err, 1024);
    scheduler *s = NULL;
    if (config_open(class_name, options, &s, &err) || scheduler_set_timesteps(s, steps, &err)) {
        fail_msg("%s %s: %s", class_name, options, err.text);
    }
    return s;
}

#endif

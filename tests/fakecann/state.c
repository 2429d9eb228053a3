/* state.c: the lock, counts, injected failures, violations and the report. */
#include "core.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FUNCTIONS = 64, MAX_FAILURES = 16, TEXT = 256 };

static struct {
    pthread_mutex_t lock;
    struct {
        char name[64];
        uint64_t calls;
    } function[MAX_FUNCTIONS];
    struct {
        char name[64];
        uint64_t at;
        int32_t code;
    } failure[MAX_FAILURES];
    uint32_t random, one_in;
    uint64_t failed, violations;
    char violation[TEXT];
    int strict, late;
    fakecann_live_counts live;
} state = {.lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP};

static __thread char message[2][TEXT];
static __thread int message_turn;

void fake_lock(void)
{
    pthread_mutex_lock(&state.lock);
}

void fake_unlock(void)
{
    pthread_mutex_unlock(&state.lock);
}

static uint64_t *count_of(const char *name)
{
    for (int i = 0; i < MAX_FUNCTIONS; i++) {
        if (!state.function[i].name[0])
            (void)snprintf(state.function[i].name, sizeof state.function[i].name, "%s", name);
        if (strcmp(state.function[i].name, name) == 0)
            return &state.function[i].calls;
    }
    abort(); /* more functions than there are */
}

uint64_t fakecann_calls(const char *function)
{
    uint64_t sum = 0;
    fake_lock();
    for (int i = 0; i < MAX_FUNCTIONS; i++)
        if (!function || strcmp(state.function[i].name, function) == 0)
            sum += state.function[i].calls;
    fake_unlock();
    return sum;
}

void fakecann_fail(const char *function, uint64_t nth, int32_t code)
{
    fake_lock();
    for (int i = 0; i < MAX_FAILURES; i++)
        if (!state.failure[i].name[0]) {
            (void)snprintf(state.failure[i].name, sizeof state.failure[i].name, "%s", function);
            state.failure[i].at = *count_of(function) + nth;
            state.failure[i].code = code;
            break;
        }
    fake_unlock();
}

void fakecann_fail_randomly(uint32_t seed, uint32_t one_in)
{
    fake_lock();
    state.random = seed ? seed : 1;
    state.one_in = one_in;
    fake_unlock();
}

uint64_t fakecann_failed(void)
{
    return state.failed;
}

void fakecann_strict(int on)
{
    state.strict = on;
}

void fakecann_tell_late(int on)
{
    state.late = on;
}

int fake_tells_late(void)
{
    return state.late;
}

int fake_is_strict(void)
{
    return state.strict;
}

/* xorshift32 */
static uint32_t random_next(void)
{
    state.random ^= state.random << 13;
    state.random ^= state.random >> 17;
    state.random ^= state.random << 5;
    return state.random;
}

static int32_t random_failure(const char *name)
{
    static const int32_t runtime[] = {ACL_ERROR_RT_MEMORY_ALLOCATION, ACL_ERROR_RT_PARAM_INVALID,
                                      ACL_ERROR_RT_AICORE_TIMEOUT, ACL_ERROR_RT_AICORE_EXCEPTION};
    static const int32_t operators[] = {ACL_ERROR_RT_MEMORY_ALLOCATION, ACLNN_ERR_PARAM_INVALID,
                                        ACLNN_ERR_RUNTIME_ERROR, ACLNN_ERR_INNER_TILING_ERROR};
    if (!state.one_in || random_next() % state.one_in != 0)
        return 0;
    const int32_t *codes = strncmp(name, "aclnn", 5) == 0 ? operators : runtime;
    return codes[random_next() % 4];
}

static int32_t planned_failure(const char *name, uint64_t call)
{
    for (int i = 0; i < MAX_FAILURES; i++)
        if (state.failure[i].at == call && strcmp(state.failure[i].name, name) == 0) {
            state.failure[i].name[0] = '\0';
            return state.failure[i].code;
        }
    return 0;
}

static int32_t enter(const char *function, int may_fail_randomly)
{
    fake_lock();
    uint64_t call = ++*count_of(function);
    int32_t code = planned_failure(function, call);
    if (!code && may_fail_randomly)
        code = random_failure(function);
    state.failed += code != 0;
    fake_unlock();
    return code ? fake_error(code, "[PID] EZ9999: %s was told to fail\n", function) : 0;
}

int32_t fake_enter(const char *function)
{
    return enter(function, 1);
}

int32_t fake_enter_release(const char *function)
{
    return enter(function, 0);
}

int32_t fake_error(int32_t code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message[message_turn], TEXT, format, args);
    va_end(args);
    return code;
}

/* Gets and forgets; the previous text's memory is overwritten. */
const char *fake_take_message(void)
{
    int taken = message_turn;
    if (!message[taken][0])
        return NULL;
    message_turn = !message_turn;
    message[message_turn][0] = '\0';
    return message[taken];
}

void fake_violation(const char *format, ...)
{
    va_list args;
    fake_lock();
    va_start(args, format);
    (void)vsnprintf(state.violation, sizeof state.violation, format, args);
    va_end(args);
    state.violations++;
    fake_unlock();
}

uint64_t fakecann_violations(void)
{
    return state.violations;
}

const char *fakecann_violation(void)
{
    return state.violation;
}

void fakecann_forget_violations(void)
{
    fake_lock();
    state.violations = 0;
    state.violation[0] = '\0';
    fake_unlock();
}

void fake_live_add(const char *what, int64_t n)
{
    const struct {
        const char *name;
        uint64_t *count;
    } all[] = {{"allocations", &state.live.allocations}, {"bytes", &state.live.bytes},
               {"tensors", &state.live.tensors},         {"scalars", &state.live.scalars},
               {"executors", &state.live.executors},     {"streams", &state.live.streams},
               {"devices", &state.live.devices},         {"inits", &state.live.inits}};
    fake_lock();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, what) == 0)
            *all[i].count += (uint64_t)n;
    fake_unlock();
}

fakecann_live_counts fakecann_live(void)
{
    fake_lock();
    fakecann_live_counts live = state.live;
    fake_unlock();
    return live;
}

/* function:nth:code, separated by commas. */
static void failures_read(const char *text)
{
    char name[64];
    unsigned long long nth;
    int code, length;
    while (sscanf(text, "%63[^:]:%llu:%d%n", name, &nth, &code, &length) == 3) {
        fakecann_fail(name, nth, code);
        text += length;
        text += *text == ',';
    }
}

__attribute__((constructor)) static void state_begin(void)
{
    const char *fail = getenv("FAKECANN_FAIL"), *strict = getenv("FAKECANN_STRICT");
    if (fail)
        failures_read(fail);
    state.strict = strict && strcmp(strict, "1") == 0;
}

__attribute__((destructor)) static void state_end(void)
{
    const char *path = getenv("FAKECANN_REPORT");
    FILE *f = path ? fopen(path, "w") : NULL;
    const fakecann_live_counts *l = &state.live;
    if (!f)
        return;
    for (int i = 0; i < MAX_FUNCTIONS && state.function[i].name[0]; i++)
        (void)fprintf(f, "%s %llu\n", state.function[i].name,
                      (unsigned long long)state.function[i].calls);
    (void)fprintf(f, "leaks %llu\n",
                  (unsigned long long)(l->allocations + l->tensors + l->scalars + l->executors +
                                       l->streams + l->devices));
    (void)fprintf(f, "violations %llu %s\n", (unsigned long long)state.violations, state.violation);
    (void)fclose(f);
}

/* names.c: what people call attention processors and ops, and the plugins that they mean.
 *
 * Class names: diffusers v0.26.3 src/diffusers/models/attention_processor.py,
 * src/diffusers/pipelines/text_to_video_synthesis/pipeline_text_to_video_zero.py (CrossFrame...),
 * v0.28.0 for AttnProcessorNPU.  Op names: DiffSynth-Studio's DIFFSYNTH_ATTENTION_IMPLEMENTATION.
 */
#include "names.h"

#include "error.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#define OWN "org.attnplug."

#define SDPA  ATTN_NAME_SDPA
#define EXACT ATTN_NAME_EXACT
#define NPU   ATTN_NAME_F32_AUTO

static const char by_attention_op[] = "attention_op, where given, names the op";
static const char train_q_out[] = "train_q_out is False unless given";

#define NAME(flags, name, processor, op, note)                                                     \
    {                                                                                              \
        sizeof(attn_name), flags, name, processor, op, note                                        \
    }
static const attn_name names[] = {
    NAME(0, "AttnProcessor", "standard", "math", ""),
    NAME(SDPA, "AttnProcessor2_0", "standard", "auto", ""),
    NAME(SDPA, "FusedAttnProcessor2_0", "fused", "auto", ""),
    NAME(0, "XFormersAttnProcessor", "standard", "memory_efficient", by_attention_op),
    NAME(0, "SlicedAttnProcessor", "standard", "sliced", ""),
    NAME(0, "SlicedAttnAddedKVProcessor", "added_kv", "sliced", ""),
    NAME(0, "LoRAAttnProcessor", "lora", "math", ""),
    NAME(SDPA, "LoRAAttnProcessor2_0", "lora", "auto", ""),
    NAME(0, "LoRAXFormersAttnProcessor", "lora", "memory_efficient", by_attention_op),
    NAME(0, "LoRAAttnAddedKVProcessor", "lora+added_kv", "auto", ""),
    NAME(0, "CustomDiffusionAttnProcessor", "custom_diffusion", "math", ""),
    NAME(SDPA, "CustomDiffusionAttnProcessor2_0", "custom_diffusion", "auto", ""),
    NAME(0, "CustomDiffusionXFormersAttnProcessor", "custom_diffusion", "memory_efficient",
         train_q_out),
    NAME(0, "AttnAddedKVProcessor", "added_kv", "math", ""),
    NAME(SDPA, "AttnAddedKVProcessor2_0", "added_kv", "auto", ""),
    NAME(0, "XFormersAttnAddedKVProcessor", "added_kv", "memory_efficient", by_attention_op),
    NAME(0, "IPAdapterAttnProcessor", "ip_adapter", "math", ""),
    NAME(SDPA, "IPAdapterAttnProcessor2_0", "ip_adapter", "auto", ""),
    NAME(0, "CrossFrameAttnProcessor", "cross_frame", "math", ""),
    NAME(SDPA, "CrossFrameAttnProcessor2_0", "cross_frame", "auto", ""),
    NAME(SDPA | NPU, "AttnProcessorNPU", "standard", "npu_flash", "fp32 takes auto"),
    NAME(0, "flash_attention_4", NULL, "cuda_flash", ""),
    NAME(0, "flash_attention_3", NULL, "cuda_flash", ""),
    NAME(0, "flash_attention_2", NULL, "cuda_flash", ""),
    NAME(0, "sage_attention", NULL, "sage", ""),
    NAME(0, "xformers", NULL, "memory_efficient", ""),
    NAME(EXACT, "torch", NULL, "auto", "exact ops only"),
    NAME(0, "auto", NULL, "auto", "the fastest op that takes the call"),
    NAME(0, "math", NULL, "math", "on CUDA: cuda_math"),
    NAME(0, "memory_efficient", NULL, "memory_efficient", "on CUDA: cuda_flash"),
    NAME(0, "sliced", NULL, "sliced", "works through another op, slice by slice"),
    NAME(0, "cuda_math", NULL, "cuda_math", ""),
    NAME(0, "cuda_flash", NULL, "cuda_flash", ""),
    NAME(0, "cudnn", NULL, "cudnn", ""),
    NAME(0, "npu_flash", NULL, "npu_flash", ""),
    NAME(0, "sage", NULL, "sage", "approximate: 8-bit scores"),
    NAME(0, "standard", "standard", "auto", ""),
    NAME(0, "fused", "fused", "auto", ""),
    NAME(0, "lora", "lora", "auto", ""),
    NAME(0, "custom_diffusion", "custom_diffusion", "auto", ""),
    NAME(0, "added_kv", "added_kv", "auto", ""),
    NAME(0, "ip_adapter", "ip_adapter", "auto", ""),
    NAME(0, "cross_frame", "cross_frame", "auto", ""),
    NAME(0, "lora+standard", "lora+standard", "auto",
         "low-rank terms on the linears of the second"),
    NAME(0, "lora+fused", "lora+fused", "auto", "with merged=1: packed weights take no terms"),
    NAME(0, "lora+custom_diffusion", "lora+custom_diffusion", "auto", ""),
    NAME(0, "lora+added_kv", "lora+added_kv", "auto", ""),
    NAME(0, "lora+ip_adapter", "lora+ip_adapter", "auto", ""),
    NAME(0, "lora+cross_frame", "lora+cross_frame", "auto", ""),
};
enum { N_NAMES = sizeof names / sizeof *names };

/* An op's short name and the plugin that it means on a device. */
static const struct {
    const char *op, *runtime, *id;
} device_ops[] = {
    {"math", "cuda", OWN "cuda_math"},
    {"memory_efficient", "cuda", OWN "cuda_flash"},
};

attn_status attn_name_get(uint32_t index, attn_name *name)
{
    if (index >= N_NAMES || name->size < sizeof *name) {
        return index >= N_NAMES ? ATTN_NOT_FOUND : ATTN_INVALID;
    }
    *name = names[index];
    return ATTN_OK;
}

/* An id of a processor of ours stands for its short name.  (One of an op means that very op, which
 * a short name does not on every device.) */
static const attn_name *find(const char *text)
{
    const bool is_id = strncmp(text, OWN, sizeof OWN - 1) == 0;
    if (is_id) {
        text += sizeof OWN - 1;
    }
    for (size_t i = 0; i < N_NAMES; i++) {
        const bool is_short = names[i].processor && strcmp(names[i].processor, text) == 0;
        if (strcmp(names[i].name, text) == 0 && (is_short || !is_id)) {
            return &names[i];
        }
    }
    return NULL;
}

enum { MAX_TYPED = 63 };

/* Edits (insert, delete, replace) between two texts, letters of either case alike. */
static size_t distance(const char *a, const char *b)
{
    size_t row[MAX_TYPED + 1];
    size_t n = strnlen(b, MAX_TYPED);
    for (size_t k = 0; k <= n; k++) {
        row[k] = k;
    }
    for (size_t i = 0; a[i] && i < MAX_TYPED; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t k = 1; k <= n; k++) {
            size_t replaced = diagonal + (strncasecmp(&a[i], &b[k - 1], 1) != 0);
            size_t other = (row[k] < row[k - 1] ? row[k] : row[k - 1]) + 1;
            diagonal = row[k];
            row[k] = replaced < other ? replaced : other;
        }
    }
    return row[n];
}

/* A misspelling leaves two letters of three as they were; one letter may always be wrong. */
static bool near(const char *typed, const char *name, size_t d)
{
    size_t longer = strlen(typed) > strlen(name) ? strlen(typed) : strlen(name);
    return d <= 1 || d <= longer / 3;
}

enum wanted { WANT_ANY, WANT_OP, WANT_PROCESSOR };

/* An op is not offered to who wants a processor; whoever wants an op gets one from any name but
 * those that leave the choice open. */
static bool offered(const attn_name *name, enum wanted wanted)
{
    return wanted == WANT_ANY ||
           (wanted == WANT_PROCESSOR ? name->processor != NULL : strcmp(name->op, "auto") != 0);
}

static attn_status fail_unknown(enum wanted wanted, const char *text, attn_error *err)
{
    static const char *const what[] = {"processor or op", "op", "processor"};
    const char *nearest = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < N_NAMES; i++) {
        size_t d = distance(text, names[i].name);
        if (d < least && offered(&names[i], wanted)) {
            least = d;
            nearest = names[i].name;
        }
    }
    if (!nearest || !text[0] || !near(text, nearest, least)) {
        return attn_fail(err, ATTN_NOT_FOUND, "\"%.63s\" is no %s; `attnplug names` lists them all",
                         text, what[wanted]);
    }
    return attn_fail(err, ATTN_NOT_FOUND,
                     "\"%.63s\" is no %s; the nearest is \"%s\", `attnplug names` lists them all",
                     text, what[wanted], nearest);
}

/* "lora+NAME" where NAME is any name of a processor. */
static const attn_name *find_composed(const char *text)
{
    const char *plus = strchr(text, '+');
    if (!plus || strncmp(text, "lora+", 5) != 0) {
        return NULL;
    }
    const attn_name *base = find(plus + 1);
    for (size_t i = 0; base && base->processor && i < N_NAMES; i++) {
        if (strncmp(names[i].name, "lora+", 5) == 0 &&
            strcmp(names[i].name + 5, base->processor) == 0) {
            return &names[i];
        }
    }
    return NULL;
}

attn_status attn_name_find(const char *text, attn_name *name, attn_error *err)
{
    if (!text) {
        return attn_fail(err, ATTN_INVALID, "attn_name_find: no text");
    }
    if (name->size < sizeof *name) {
        return attn_fail(err, ATTN_INVALID, "attn_name: size is %u, expected at least %zu",
                         name->size, sizeof *name);
    }
    const attn_name *found = find(text);
    if (found) {
        *name = *found;
        return ATTN_OK;
    }
    const attn_name *composed = find_composed(text);
    if (!composed) {
        return fail_unknown(WANT_ANY, text, err);
    }
    attn_name base = *find(strchr(text, '+') + 1);
    *name = *composed; /* the op and the flags are the second's */
    name->op = base.op;
    name->flags = base.flags;
    return ATTN_OK;
}

static attn_status write_id(const char *prefix, const char *name, char id[64], attn_error *err)
{
    int n = snprintf(id, 64, "%s%s", prefix, name);
    return n < 64 ? ATTN_OK
                  : attn_fail(err, ATTN_INVALID, "\"%.80s\": an id has at most 63 bytes", name);
}

attn_status attn_op_id(const char *op, const char *runtime, char id[64], attn_error *err)
{
    if (op && strchr(op, '.')) {
        return write_id("", op, id, err);
    }
    const attn_name *name = op ? find(op) : NULL;
    if (!name) {
        return fail_unknown(WANT_OP, op ? op : "", err);
    }
    if (strcmp(name->op, "auto") == 0) {
        return attn_fail(err, ATTN_INVALID, "\"%s\" is no one op: it leaves the choice open", op);
    }
    for (size_t i = 0; runtime && i < sizeof device_ops / sizeof *device_ops; i++) {
        if (strcmp(device_ops[i].op, name->op) == 0 &&
            strcmp(device_ops[i].runtime, runtime) == 0) {
            return write_id("", device_ops[i].id, id, err);
        }
    }
    return write_id(OWN, name->op, id, err);
}

attn_status attn_processor_id(const char *processor, char id[64], attn_error *err)
{
    if (processor && strchr(processor, '.')) {
        return write_id("", processor, id, err);
    }
    const attn_name *name = processor ? find(processor) : NULL;
    if (!name || !name->processor) {
        return fail_unknown(WANT_PROCESSOR, processor ? processor : "", err);
    }
    if (strchr(name->processor, '+')) {
        return attn_fail(err, ATTN_INVALID,
                         "\"%s\" is two processors (%s), each of which has an id of its own",
                         processor, name->processor);
    }
    return write_id(OWN, name->processor, id, err);
}

/* Ops that auto asks, fastest first; what is not here stands before the last. */
static const char *const built_in_cpu[] = {OWN "memory_efficient", OWN "math", NULL};
static const char *const built_in_cuda[] = {OWN "cuda_flash", OWN "cudnn", OWN "cuda_math", NULL};
static const char *const built_in_cann[] = {OWN "npu_flash", NULL};
static const char *const built_in_none[] = {NULL};

const char *const *names_built_in_order(const char *runtime)
{
    return strcmp(runtime, "cpu") == 0    ? built_in_cpu
           : strcmp(runtime, "cuda") == 0 ? built_in_cuda
           : strcmp(runtime, "cann") == 0 ? built_in_cann
                                          : built_in_none;
}

bool names_only_when_named(const char *id)
{
    return strcmp(id, OWN "sliced") == 0;
}

void names_list_ops(char *text, size_t capacity)
{
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < N_NAMES; i++) {
        if (!names[i].processor && used < capacity) {
            used += (size_t)snprintf(text + used, capacity - used, "%s%s", used ? ", " : "",
                                     names[i].name);
        }
    }
}

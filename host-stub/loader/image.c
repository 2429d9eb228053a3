/* image.c: dlopen of a private copy, and the checks that what was mapped is what was judged. */
#include "image.h"

#include "error.h"
#include "host_state.h"
#include "image_beside.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct image {
    image *next;
    int fd; /* of the copy, kept: its number is the name by which the dynamic linker knows it */
    uint64_t size;
    void *handle;
    const attn_op_api *op;
    const attn_processor_api *processor;
};

/* Recursive: code that runs inside dlopen may itself be a host. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock;
static image *images;

static void lock_init(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

const attn_op_api *image_op(const image *im)
{
    return im->op;
}

const attn_processor_api *image_processor(const image *im)
{
    return im->processor;
}

static bool same_bytes(int a, int b, uint64_t size)
{
    void *x = mmap(NULL, size, PROT_READ, MAP_PRIVATE, a, 0);
    void *y = mmap(NULL, size, PROT_READ, MAP_PRIVATE, b, 0);
    bool same = x != MAP_FAILED && y != MAP_FAILED && memcmp(x, y, size) == 0;
    if (x != MAP_FAILED) {
        munmap(x, size);
    }
    if (y != MAP_FAILED) {
        munmap(y, size);
    }
    return same;
}

static image *find_same(const image_copy *copy)
{
    for (image *im = images; im; im = im->next) {
        if (im->size == copy->size && im->fd >= 0 && same_bytes(im->fd, copy->fd, copy->size)) {
            return im;
        }
    }
    return NULL;
}

/* The dynamic linker takes a name that it knows for the object that it knows by it.  A host that
 * closes descriptors behind our back would make numbers come twice: such a number is passed over.
 */
static int unused_number(int fd)
{
    for (int least = fd;;) {
        const image *im = images;
        while (im && im->fd != fd) {
            im = im->next;
        }
        if (!im) {
            return fd;
        }
        int other = fcntl(fd, F_DUPFD_CLOEXEC, ++least);
        if (other < 0) {
            return fd;
        }
        fd = other;
    }
}

/* "/proc/<pid>/fd/<n>": by number of process, so that debuggers can open it too. */
static bool copy_name(int fd, char *name, size_t capacity)
{
    char pid[32];
    ssize_t n = readlink("/proc/self", pid, sizeof pid - 1);
    if (n <= 0) {
        return false;
    }
    pid[n] = 0;
    return snprintf(name, capacity, "/proc/%s/fd/%d", pid, fd) < (int)capacity;
}

/* What is mapped at an address, by the kernel's word. */
static bool mapped_from(const void *address, int fd)
{
    struct stat st;
    char line[512];
    bool same = false;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps || fstat(fd, &st) != 0) {
        if (maps) {
            (void)fclose(maps);
        }
        return false;
    }
    while (fgets(line, sizeof line, maps)) {
        unsigned long begin, end, inode;
        if (sscanf(line, "%lx-%lx %*s %*x %*x:%*x %lu", &begin, &end, &inode) == 3 &&
            (unsigned long)(uintptr_t)address >= begin && (unsigned long)(uintptr_t)address < end) {
            same = inode == (unsigned long)st.st_ino;
            break;
        }
    }
    (void)fclose(maps);
    return same;
}

struct code_query {
    uintptr_t address;
    bool executable;
};

static int is_executable(struct dl_phdr_info *info, size_t size, void *data)
{
    struct code_query *query = data;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_LOAD && p->p_flags & PF_X && query->address >= begin &&
            query->address - begin < p->p_memsz) {
            query->executable = true;
            return 1;
        }
    }
    return 0;
}

/* The functions of either symbol stand in one row after the head. */
static bool functions_are_code(const void *first, size_t n, size_t n_required, uint32_t *which)
{
    const uintptr_t *functions = first;
    for (size_t i = 0; i < n; i++) {
        struct code_query query = {functions[i], false};
        if (functions[i] == 0 && i >= n_required) {
            continue;
        }
        dl_iterate_phdr(is_executable, &query);
        if (!query.executable) {
            *which = (uint32_t)i;
            return false;
        }
    }
    return true;
}

enum {
    OP_FUNCTIONS = (sizeof(attn_op_api) - sizeof(attn_head)) / sizeof(void *),
    PROCESSOR_FUNCTIONS = (sizeof(attn_processor_api) - sizeof(attn_head)) / sizeof(void *),
};

/* One symbol of the mapped image against the head that was read from the file. */
static const void *take_symbol(const image_source *source, void *handle, const char *name,
                               const attn_head *head, size_t n_functions, uint32_t *verdict,
                               attn_error *err)
{
    const char *symbol = dlsym(handle, name);
    uint32_t which = 0;
    *verdict = ATTN_VERDICT_BAD_HEAD;
    if (!symbol || memcmp(symbol, head, sizeof *head) != 0) {
        attn_fail(err, ATTN_INVALID, "%s: %s in memory is not what the file says", source->path,
                  name);
        return NULL;
    }
    if (!functions_are_code(symbol + sizeof *head, n_functions, n_functions - 1, &which)) {
        attn_fail(err, ATTN_INVALID, "%s: function %u of %s is not code", source->path, which,
                  name);
        return NULL;
    }
    *verdict = ATTN_VERDICT_OK;
    return symbol;
}

static attn_status take_symbols(const image_source *source, image *im, const elf_heads *heads,
                                uint32_t *verdict, attn_error *err)
{
    if (heads->has_op) {
        im->op =
            take_symbol(source, im->handle, "attn_op_v1", &heads->op, OP_FUNCTIONS, verdict, err);
        if (!im->op) {
            return ATTN_INVALID;
        }
    }
    if (heads->has_processor) {
        im->processor = take_symbol(source, im->handle, "attn_processor_v1", &heads->processor,
                                    PROCESSOR_FUNCTIONS, verdict, err);
        if (!im->processor) {
            return ATTN_INVALID;
        }
    }
    const void *any = im->op ? (const void *)im->op : im->processor;
    if (im->fd >= 0 && !mapped_from(any, im->fd)) {
        *verdict = ATTN_VERDICT_BAD_FILE;
        return attn_fail(err, ATTN_INTERNAL, "%s: what was mapped is not its copy", source->path);
    }
    return ATTN_OK;
}

static attn_status fail_dlopen(const image_source *source, const char *why, attn_error *err)
{
    return attn_fail(err, ATTN_NOT_FOUND, "%s: %s", source->path, why);
}

/* dlerror speaks of the copy; people know the file. */
static const char *dlopen_reason(const char *name)
{
    const char *why = dlerror();
    size_t n = strlen(name);
    if (!why) {
        return "no reason given";
    }
    return strncmp(why, name, n) == 0 ? why + n + strspn(why + n, ": ") : why;
}

/* Whether the kernel refuses to execute the copy, as some security modules do, or to open it by its
 * name.  It is asked itself: dlopen gives no number, and its words are in the user's language. */
static bool copy_is_not_allowed(const char *name)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    void *code = fd < 0 ? MAP_FAILED : mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    if (code != MAP_FAILED) {
        munmap(code, 1);
    }
    if (fd >= 0) {
        close(fd);
    }
    return code == MAP_FAILED;
}

static attn_status open_code(const image_source *source, image *im, const elf_heads *heads,
                             uint32_t *verdict, attn_error *err)
{
    const int mode = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
    char name[64] = "";
    *verdict = ATTN_VERDICT_UNRESOLVED;
    attn_status status = image_open_beside(source, heads, err);
    if (status != ATTN_OK) {
        return status;
    }
    if (im->fd >= 0 && copy_name(im->fd, name, sizeof name)) {
        im->handle = dlopen(name, mode);
        const char *why = im->handle ? "" : dlopen_reason(name);
        if (!im->handle && !copy_is_not_allowed(name)) {
            return fail_dlopen(source, why, err);
        }
        if (!im->handle) {
            image_say(source, 1, "cannot be opened from memory (%s): opened where it lies", why);
        }
    }
    if (!im->handle) {
        im->fd = -1;
        im->handle = dlopen(source->path, mode);
    }
    if (!im->handle) {
        return fail_dlopen(source, dlopen_reason(source->path), err);
    }
    *verdict = ATTN_VERDICT_OK;
    return ATTN_OK;
}

static attn_status open_guarded(const image_source *source, image *im, const elf_heads *heads,
                                uint32_t *verdict, attn_error *err)
{
    host_state state;
    char changed[192];
    host_state_save(&state);
    attn_status status = open_code(source, im, heads, verdict, err);
    host_state_restore(&state, changed, sizeof changed);
    if (changed[0]) {
        image_say(source, 1, "changed the host's %s while loading: put back", changed);
    }
    return status;
}

static attn_status image_new(const image_source *source, image_copy *copy, const elf_heads *heads,
                             const image **out, uint32_t *verdict, attn_error *err)
{
    image *im = calloc(1, sizeof *im);
    if (!im) {
        return attn_fail(err, ATTN_NOMEM, "%s: no memory", source->path);
    }
    if (!source->in_place) {
        copy->fd = unused_number(copy->fd);
    }
    im->fd = source->in_place ? -1 : copy->fd;
    im->size = copy->size;
    attn_status status = open_guarded(source, im, heads, verdict, err);
    if (status != ATTN_OK) {
        free(im);
        return status;
    }
    if (im->fd >= 0) {
        copy->fd = -1;
    }
    /* Also when it is refused below: its code stays mapped, and its number taken. */
    im->next = images;
    images = im;
    status = take_symbols(source, im, heads, verdict, err);
    if (status != ATTN_OK) {
        im->size = 0; /* never found again */
        return status;
    }
    *out = im;
    return ATTN_OK;
}

attn_status image_open(const image_source *source, image_copy *copy, const elf_heads *heads,
                       const image **out, uint32_t *verdict, attn_error *err)
{
    attn_status status = ATTN_OK;
    *verdict = ATTN_VERDICT_OK;
    pthread_once(&once, lock_init);
    pthread_mutex_lock(&lock);
    image *im = source->in_place ? NULL : find_same(copy);
    if (im) {
        *out = im;
    } else {
        status = image_new(source, copy, heads, out, verdict, err);
    }
    pthread_mutex_unlock(&lock);
    return status;
}

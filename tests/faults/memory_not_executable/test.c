/* Where the system forbids executing memory, the file itself is opened, whatever the language in
 * which the dynamic linker says so; a plugin that it refuses for reasons of its own is not tried
 * again.  Where it forbids only to run memory as a program, the copy serves.  This program's
 * dlopen, dlerror, mmap and memfd_create come before libc's: no ordinary account can have the
 * kernel forbid it. */
#include "fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static const char *refusal;     /* what dlopen says of a copy; NULL: it opens it */
static bool memory_forbidden;   /* mapping a copy as code fails */
static bool programs_forbidden; /* vm.memfd_noexec 2: a memfd must be made not to be one */
static const char *said;

void *dlopen(const char *name, int mode)
{
    void *(*next)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
    if (refusal && name && strncmp(name, "/proc/", 6) == 0) {
        said = refusal;
        return NULL;
    }
    return next(name, mode);
}

char *dlerror(void)
{
    static char text[256];
    char *(*next)(void) = (char *(*)(void))dlsym(RTLD_NEXT, "dlerror");
    if (!said) {
        return next();
    }
    (void)snprintf(text, sizeof text, "%s", said);
    said = NULL;
    return text;
}

static bool is_copy(int fd)
{
    char link[64], target[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, target, sizeof target);
    return n > 7 && strncmp(target, "/memfd:", 7) == 0;
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (memory_forbidden && protection & PROT_EXEC && fd >= 0 && is_copy(fd)) {
        errno = EACCES;
        return MAP_FAILED;
    }
    long mapped = syscall(SYS_mmap, address, size, protection, flags, fd, offset);
    return (void *)mapped;
}

int memfd_create(const char *name, unsigned flags)
{
    const unsigned no_program = 0x0008U, program = 0x0010U; /* of Linux 6.3 */
    if (programs_forbidden && !(flags & no_program)) {
        errno = EACCES;
        return -1;
    }
    return (int)syscall(SYS_memfd_create, name, flags & ~(no_program | program));
}

/* The dynamic linker's words as they are, and as translators may put them. */
static void forbidden(void **state)
{
    static const char *const words[] = {
        "failed to map segment from shared object: Permission denied",
        "Zuordnen des Segments des Shared-Objects fehlgeschlagen: Keine Berechtigung",
        "échec d'affectation du segment de l'objet partagé: Permission non accordée",
    };
    (void)state;
    memory_forbidden = true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        refusal = words[i];
        the_fault.log[0] = 0;
        fault_registry(0);
        fault_expect_good();
        assert_non_null(strstr(the_fault.log, words[i]));
        assert_non_null(strstr(the_fault.log, "opened where it lies"));
    }
}

static void allowed(void **state)
{
    (void)state;
    memory_forbidden = false;
    refusal = "failed to map segment from shared object: its own fault";
    the_fault.log[0] = 0;
    fault_registry(0);
    fault_expect_refused(GOOD_ID, ATTN_NOT_FOUND, "its own fault");
    assert_null(strstr(the_fault.log, "opened where it lies"));
    refusal = NULL;
    fault_registry(0);
    fault_expect_good();
}

static void no_programs(void **state)
{
    (void)state;
    memory_forbidden = false;
    refusal = NULL;
    programs_forbidden = true;
    the_fault.log[0] = 0;
    fault_registry(0);
    fault_expect_good();
    assert_null(strstr(the_fault.log, "opened where it lies"));
    programs_forbidden = false;
}

FAULT_MAIN(FAULT_TEST(forbidden), FAULT_TEST(allowed), FAULT_TEST(no_programs))

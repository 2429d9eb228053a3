/* The host's floating-point mode, signals, locale and stack protection are the same after loading
 * as before, and the log says what was put back. */
#include "stack_state.h"

#include <fcntl.h>
#include <float.h>
#include <locale.h>
#include <signal.h>
#include <sys/mman.h>

/* A mapped file whose line in /proc/self/maps is long, before those of the stacks. */
static void map_long_path(void)
{
    char path[2048], name[200];
    memset(name, 'n', sizeof name);
    (void)snprintf(path, sizeof path, "%s", the_fault.folder);
    for (size_t used = strlen(path); used < 1200; used = strlen(path)) {
        (void)snprintf(path + used, sizeof path - used, "/%.*s", (int)sizeof name, name);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    size_t used = strlen(path);
    (void)snprintf(path + used, sizeof path - used, "/mapped");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_ptr_not_equal(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0), MAP_FAILED);
    close(fd);
}

static void test(void **state)
{
    struct sigaction before, after;
    sigset_t mask;
    stack_state stack_before = stack_state_now();
    volatile float tiny = FLT_MIN;
    (void)state;
    map_long_path();
    assert_int_equal(sigaction(SIGUSR1, NULL, &before), 0);
    fault_registry(0);
    attn_host_op *op = fault_open(BAD_ID);
    assert_int_equal(sigaction(SIGUSR1, NULL, &after), 0);
    assert_true(before.sa_handler == after.sa_handler);
    assert_int_equal(sigprocmask(SIG_BLOCK, NULL, &mask), 0);
    assert_false(sigismember(&mask, SIGUSR2));
    stack_state_expect(&stack_before);
    assert_string_equal(setlocale(LC_ALL, NULL), "C");
    assert_true(tiny / 2 > 0); /* denormals are not flushed */
#if defined(__x86_64__)
    assert_non_null(strstr(the_fault.log,
                           "changed the host's floating-point mode, signal handlers, "
                           "signal mask, locale, alternate signal stack, stack limit, "
                           "stack protection while loading: put back"));
#endif
    fault_expect_right(op);
    assert_int_equal(attn_host_op_close(op), ATTN_OK);
    fault_expect_good();
}

/* Loaded by a thread that is not the first: its stack is another, with a guard page. */
static void *load_in_thread(void *arg)
{
    (void)arg;
    stack_state before = stack_state_now();
    fault_registry(0);
    assert_int_equal(attn_host_op_close(fault_open(BAD_ID)), ATTN_OK);
    stack_state_expect(&before);
    return NULL;
}

static void test_thread(void **state)
{
    pthread_t thread;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, load_in_thread, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* Equal bytes share one image, whose constructor runs once: the thread has to come first. */
int main(int argc, char **argv)
{
    const struct CMUnitTest first[] = {FAULT_TEST(test)}, thread[] = {FAULT_TEST(test_thread)};
    const bool in_thread = argc > 3 && strcmp(argv[3], "thread") == 0;
    return fault_main(argc, argv, in_thread ? thread : first, 1);
}

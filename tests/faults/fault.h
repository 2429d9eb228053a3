/* fault.h: what the tests of faults share: a folder with the plugin at fault and a right one beside
 * it, a registry on that folder, and the words to say what is expected of them.
 *
 * Each folder here is one fault: plugin.c is the smallest plugin that has it (some faults are made
 * of a right plugin's bytes), test.c says what the loader promises.  In every test the right plugin
 * goes on working: no bad file stops the others. */
#ifndef TESTS_FAULTS_FAULT_H
#define TESTS_FAULTS_FAULT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attn_host.h"
#include "error.h"

#include "../loader/attention.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOOD_ID "org.attnplug.test.plain"
#define BAD_ID  "org.attnplug.test.bad"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define FAULT_SANITIZED     1
#define FAULT_PROBE_SECONDS "10"
#else
#define FAULT_SANITIZED     0
#define FAULT_PROBE_SECONDS "2"
#endif

typedef struct {
    const char *plugin; /* the one at fault, NULL if the test makes it */
    const char *good;
    char folder[64]; /* its own, trusted */
    attn_registry *registry;
    char log[8192];
} fault;

/* The fault of this run; main fills it in from the command line. */
extern fault the_fault;

/* Copies a file into the folder. */
void fault_put(const char *from, const char *name);
void fault_put_bytes(const void *bytes, size_t n, const char *name);
/* The bytes of the right plugin, of the one at fault; the caller frees them. */
unsigned char *fault_good_bytes(size_t *n);
unsigned char *fault_plugin_bytes(size_t *n);
const char *fault_path(const char *name);

/* Opens a registry on the folder (closing the one before). */
void fault_registry(uint32_t flags);
/* A child process tries each file first; its cache is in the folder. */
void fault_registry_probe(void);

/* The file of that name has the verdict, and its reason has the words. */
void fault_expect(const char *name, uint32_t verdict, const char *words);
/* Opening the op of that id fails with the status, and the text has the words. */
void fault_expect_refused(const char *id, attn_status status, const char *words);
attn_host_op *fault_open(const char *id);
/* Right numbers, from an op that is open. */
void fault_expect_right(attn_host_op *op);
/* The right plugin is listed, opens and computes. */
void fault_expect_good(void);
/* What is no fault: bad.so opens and computes, and so does the plugin beside it. */
void fault_expect_none(void);

/* The tests of test.c, each in a folder of its own with the right plugin as good.so and the plugin
 * at fault, where there is one, as bad.so. */
int fault_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n);

#define FAULT_TEST(function) cmocka_unit_test_setup_teardown(function, fault_setup, fault_teardown)
int fault_setup(void **state);
int fault_teardown(void **state);

#define FAULT_MAIN(...)                                                                            \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        const struct CMUnitTest tests[] = {__VA_ARGS__};                                           \
        return fault_main(argc, argv, tests, sizeof tests / sizeof *tests);                        \
    }

#endif

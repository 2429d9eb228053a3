/* sag_runner.h: attnplug sag, run in a folder of its own. */
#ifndef ATTNPLUG_TESTS_CLI_SAG_RUNNER_H
#define ATTNPLUG_TESTS_CLI_SAG_RUNNER_H

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <png.h>

static char *program;
static char *demo_folder;
static char scratch[] = "/tmp/attnplug-sag-XXXXXX";
static char out_text[65536], err_text[65536];

static inline void text_read(const char *name, char *text, size_t size)
{
    FILE *file = fopen(name, "rb");
    assert_non_null(file);
    size_t n = fread(text, 1, size - 1, file);
    text[n] = 0;
    fclose(file);
}

static inline pid_t start(const char *arguments)
{
    char command[8192];
    snprintf(command, sizeof command, "exec %s sag %s >.out 2>.err </dev/null", program, arguments);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return child;
}

static inline int finish(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    text_read(".out", out_text, sizeof out_text);
    text_read(".err", err_text, sizeof err_text);
    unlink(".out");
    unlink(".err");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static inline int run(const char *arguments)
{
    return finish(start(arguments));
}

/* Files in the working folder, all of which are then removed. */
static inline size_t files_clear(void)
{
    size_t count = 0;
    DIR *folder = opendir(".");
    assert_non_null(folder);
    for (struct dirent *e; (e = readdir(folder));) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            count++;
            unlink(e->d_name);
        }
    }
    closedir(folder);
    return count;
}

/* Exit status `code`, one line on stderr with both texts in it, nothing on stdout, no file left. */
static inline void refused(const char *arguments, int code, const char *first, const char *second)
{
    int got = run(arguments);
    const char *newline = strchr(err_text, '\n');
    if (got != code || !strstr(err_text, first) || !strstr(err_text, second) || !newline ||
        newline[1] || *out_text) {
        fail_msg("sag %s: exit %d, stdout \"%s\", stderr \"%s\"", arguments, got, out_text,
                 err_text);
    }
    assert_int_equal(files_clear(), 0);
}

static const char quick[] = "--prompt 'red heart' --height 32 --width 48 --num-inference-steps 2";

static inline int quick_run(const char *more)
{
    char arguments[2048];
    snprintf(arguments, sizeof arguments, "%s %s", quick, more);
    return run(arguments);
}

static inline void picture_check(const char *name, size_t height, size_t width, const char *says)
{
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    FILE *file = fopen(name, "rb");
    png_textp texts = NULL;
    int count = 0;
    assert_true(png && info);
    if (!file || setjmp(png_jmpbuf(png))) {
        fail_msg("%s is no PNG", name);
    }
    png_init_io(png, file);
    png_read_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    assert_int_equal(png_get_image_height(png, info), height);
    assert_int_equal(png_get_image_width(png, info), width);
    png_get_text(png, info, &texts, &count);
    assert_int_equal(count, 1);
    if (!strstr(texts[0].text, says)) {
        fail_msg("\"%s\" does not say \"%s\"", texts[0].text, says);
    }
    fclose(file);
    png_destroy_read_struct(&png, &info, NULL);
}

/* Whole paths, since the tests run in a folder of their own.  The exit status of main. */
static inline int runner_main(int argc, char **argv, int (*tests)(void))
{
    program = argc == 3 ? realpath(argv[1], NULL) : NULL;
    demo_folder = argc == 3 ? realpath(argv[2], NULL) : NULL;
    if (!program || !demo_folder || !mkdtemp(scratch) || chdir(scratch) != 0) {
        return 2;
    }
    int failures = tests();
    if (chdir("/") == 0) {
        rmdir(scratch);
    }
    free(program);
    free(demo_folder);
    return failures;
}

#endif

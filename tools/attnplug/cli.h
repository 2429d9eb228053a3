/* cli.h: what the subcommands share: options, errors, the registry, and the words for devices and
 * element types. */
#ifndef ATTNPLUG_CLI_H
#define ATTNPLUG_CLI_H

#include "attn_host.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_GO = -1 };

/* -- options ---------------------------------------------------------------------------------- */

enum { CLI_MAX_TEXTS = 64 };

typedef struct {
    const char *items[CLI_MAX_TEXTS];
    uint32_t n;
} cli_texts;

typedef enum {
    CLI_FLAG,  /* bool */
    CLI_TEXT,  /* const char * */
    CLI_TEXTS, /* cli_texts: may be repeated */
    CLI_INT,   /* int64_t */
    CLI_FLOAT, /* double, finite */
} cli_kind;

typedef struct {
    const char *name; /* without the dashes; NULL: `help` is a heading over the rows that follow */
    cli_kind kind;
    void *value;         /* of the kind's type; holds the default before parsing */
    const char *metavar; /* "DIR"; NULL for flags */
    const char *help;    /* with the default in brackets at its end */
} cli_option;

typedef struct {
    const char *usage; /* "attnplug why --shape B,H,Nq,Nk,D [OPTIONS]" */
    const char *about; /* a paragraph or more */
    const cli_option *options;
    size_t n_options;
    int min_operands, max_operands; /* words that are no options; -1: no bound */
} cli_command;

enum { CLI_MAX_OPTIONS = 96 }; /* of a command, headings and what every command takes included */

/* What every subcommand takes besides its own options. */
typedef struct {
    cli_texts plugin_paths;
    bool trust_all, verbose;
} cli_common;
extern cli_common cli_global;

/* CLI_GO: parsed, operands are argv[*first ..]; otherwise the exit status (after --help, --man or a
 * mistake, which was printed). */
int cli_parse(const cli_command *command, int argc, char **argv, int *first);

/* cli_help.c: what --help and --man (the page as roff) print; common: what every command takes. */
void cli_help_print(const cli_command *command, const cli_option *common, size_t n_common);
void cli_man_print(const cli_command *command, const cli_option *common, size_t n_common);

/* The page of attnplug itself. */
void cli_man_overview(void);

/* -- errors: "attnplug: ..." on stderr --------------------------------------------------------- */

/* Returns CLI_FAILED. */
__attribute__((format(printf, 1, 2))) int cli_fail(const char *format, ...);
/* Returns CLI_USAGE. */
__attribute__((format(printf, 1, 2))) int cli_misuse(const char *format, ...);
/* The log of registries and pipelines: errors and warnings, the rest with --verbose. */
void cli_log(void *ctx, int32_t level, const char *text);
/* Flushes stdout; a full disk or a closed pipe is a failure too. */
int cli_finish(int status);

/* -- plugins ----------------------------------------------------------------------------------- */

/* The registry with --plugin-path and --trust-all; logs to stderr. 0 or an exit status. */
int cli_registry(attn_registry **registry);

/* cli_files.c: an op may be named by its plugin's file ("./x.so", with a slash in it), which is
 * then searched first and trusted as any other.  Before cli_registry, NULL and other names being
 * nothing to do; 0 or an exit status.  After it *op becomes the file's id, which lives as long as
 * the registry. */
int cli_op_file(const char *op);
int cli_op_of_file(attn_registry *registry, const char **op);
/* 0 where op is NULL, or a name or id of one; else the exit status. */
int cli_op_known(attn_registry *registry, const char *op);

/* The same for [GLOB=]NAME[+NAME][:PARAM=VALUE,...]: each NAME may be a file, and the value of the
 * parameter attention_op.  *text becomes one with ids, which lives until cli_processor_free. */
typedef struct {
    char *cut, *ids;
} cli_processor;
int cli_processor_files(const char *text, cli_processor *p);
int cli_processor_of_files(attn_registry *registry, const char **text, cli_processor *p);
void cli_processor_free(cli_processor *p);
/* 0 where each of the names that "+" joins is one of a processor; `text` is what was typed. */
int cli_processor_known(attn_registry *registry, const char *names, const char *text);
/* Where the names begin: behind "GLOB=", in which there is no slash. */
const char *cli_processor_names(const char *text);

/* -- words ------------------------------------------------------------------------------------- */

/* "cpu", "cuda", "cuda:1", "cann". False: printed what is wrong. */
bool cli_device(const char *text, attn_device *device);
/* "f32", "f16", "bf16", "f64". */
bool cli_dtype(const char *text, uint8_t *code, uint8_t *bits);
/* "2,8,4096,4096,40": n numbers of at least 1. */
bool cli_shape(const char *text, int64_t *shape, int n);
/* "cpu,cuda" for the bits of attn_head.devices; "f32,f16" for dtypes. */
void cli_devices_text(uint64_t devices, char *text, size_t capacity);
void cli_dtypes_text(uint64_t dtypes, char *text, size_t capacity);

/* A contiguous tensor without data. */
attn_tensor cli_tensor(const attn_device *device, uint8_t code, uint8_t bits, uint32_t rank,
                       const int64_t *shape);

/* A JSON text with its quotes. Bytes that are no UTF-8 become U+FFFD. */
void cli_json_text(FILE *to, const char *text);

#endif

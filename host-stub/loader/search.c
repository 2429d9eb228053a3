/* search.c: search order and folder listing. */
#include "search.h"

#include "error.h"
#include "trust.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>

void text_list_free(text_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free(list->items[i]);
    }
    free(list->items);
    *list = (text_list){0};
}

bool text_list_add(text_list *list, const char *text)
{
    if ((list->n & (list->n - 1)) == 0) {
        size_t capacity = list->n ? list->n * 2 : 1;
        char **items = realloc(list->items, capacity * sizeof *items);
        if (!items) {
            return false;
        }
        list->items = items;
    }
    char *copy = strdup(text);
    if (!copy) {
        return false;
    }
    list->items[list->n++] = copy;
    return true;
}

static attn_status place_add(search_order *order, const char *path, bool is_file, attn_error *err)
{
    search_place *places = realloc(order->places, (order->n + 1) * sizeof *places);
    char *copy = strdup(path);
    if (places) {
        order->places = places;
    }
    if (!places || !copy) {
        free(copy);
        return attn_fail(err, ATTN_NOMEM, "no memory for the search order");
    }
    order->places[order->n++] = (search_place){copy, is_file};
    return ATTN_OK;
}

/* What the caller names may be relative: it is made absolute now, once. */
static attn_status add_given(search_order *order, const char *path, attn_error *err)
{
    char real[PATH_MAX];
    struct stat st;
    if (!path || !*path) {
        return attn_fail(err, ATTN_INVALID, "paths: an empty one, expected a folder or a file");
    }
    if (!realpath(path, real)) {
        return place_add(order, path, true, err);
    }
    bool is_file = stat(real, &st) == 0 && !S_ISDIR(st.st_mode);
    return place_add(order, is_file && path[0] == '/' ? path : real, is_file, err);
}

/* Why nothing will come of a folder that somebody meant; NULL: something will. */
static const char *folder_fault(const char *path)
{
    text_list names = {0};
    struct stat st;
    if (stat(path, &st) != 0) {
        return errno == ENOENT ? "is not there" : strerror(errno);
    }
    const bool is_empty = search_folder(path, &names, NULL) == ATTN_OK && !names.n;
    text_list_free(&names);
    return is_empty ? "has no *.so (folders in it are not searched)" : NULL;
}

static attn_status note_fault(search_order *order, const char *path, attn_error *err)
{
    char line[PATH_MAX + 96];
    const char *fault = folder_fault(path);
    (void)snprintf(line, sizeof line, "ATTNPLUG_PATH: %s %s", path, fault ? fault : "");
    return !fault || text_list_add(&order->skipped, line)
               ? ATTN_OK
               : attn_fail(err, ATTN_NOMEM, "no memory for the search order");
}

static attn_status add_environment(search_order *order, attn_error *err)
{
    const char *value = secure_getenv("ATTNPLUG_PATH");
    attn_status status = ATTN_OK;
    for (; value && *value && status == ATTN_OK;) {
        size_t n = strcspn(value, ":");
        char path[PATH_MAX], line[PATH_MAX + 64];
        if (n && (value[0] != '/' || n >= sizeof path)) {
            (void)snprintf(line, sizeof line,
                           "ATTNPLUG_PATH: \"%.*s\" was passed over, expected an absolute path",
                           (int)(n < 200 ? n : 200), value);
            if (!text_list_add(&order->skipped, line)) {
                return attn_fail(err, ATTN_NOMEM, "no memory for the search order");
            }
        } else if (n) {
            memcpy(path, value, n);
            path[n] = 0;
            status = place_add(order, path, false, err);
            status = status == ATTN_OK ? note_fault(order, path, err) : status;
        }
        value += n + (value[n] == ':');
    }
    return status;
}

static attn_status add_user(search_order *order, attn_error *err)
{
    char path[PATH_MAX];
    const char *data = secure_getenv("XDG_DATA_HOME");
    const char *home = secure_getenv("HOME");
    int n = 0;
    if (data && data[0] == '/') {
        n = snprintf(path, sizeof path, "%s/attnplug/plugins", data);
    } else if (home && home[0] == '/') {
        n = snprintf(path, sizeof path, "%s/.local/share/attnplug/plugins", home);
    }
    return n > 0 && n < (int)sizeof path ? place_add(order, path, false, err) : ATTN_OK;
}

static attn_status add_installed(search_order *order, attn_error *err)
{
    char folder[PATH_MAX], path[PATH_MAX];
    if (!library_folder(folder)) {
        return ATTN_OK;
    }
    int n = snprintf(path, sizeof path, "%s/attnplug/v1", folder);
    return n < (int)sizeof path ? place_add(order, path, false, err) : ATTN_OK;
}

attn_status search_order_make(const attn_registry_options *options, search_order *order,
                              attn_error *err)
{
    *order = (search_order){0};
    attn_status status = ATTN_OK;
    for (uint32_t i = 0; i < options->n_paths && status == ATTN_OK; i++) {
        status = add_given(order, options->paths[i], err);
    }
    if (options->flags & ATTN_REGISTRY_ONLY_PATHS) {
        return status;
    }
    if (status == ATTN_OK && !getauxval(AT_SECURE)) {
        status = add_environment(order, err);
        if (status == ATTN_OK) {
            status = add_user(order, err);
        }
    }
    return status == ATTN_OK ? add_installed(order, err) : status;
}

void search_order_free(search_order *order)
{
    for (size_t i = 0; i < order->n; i++) {
        free(order->places[i].path);
    }
    free(order->places);
    text_list_free(&order->skipped);
    *order = (search_order){0};
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

attn_status search_folder(const char *folder, text_list *names, attn_error *err)
{
    *names = (text_list){0};
    DIR *dir = opendir(folder);
    if (!dir) {
        return errno == ENOENT ? ATTN_OK
                               : attn_fail(err, ATTN_IO, "folder %s: %s", folder, strerror(errno));
    }
    attn_status status = ATTN_OK;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno) {
                status = attn_fail(err, ATTN_IO, "folder %s: %s", folder, strerror(errno));
            }
            break;
        }
        size_t n = strlen(entry->d_name);
        if (n > 3 && entry->d_name[0] != '.' && strcmp(entry->d_name + n - 3, ".so") == 0 &&
            !text_list_add(names, entry->d_name)) {
            status = attn_fail(err, ATTN_NOMEM, "no memory for the files of %s", folder);
            break;
        }
    }
    closedir(dir);
    if (names->n > 1) {
        qsort(names->items, names->n, sizeof *names->items, compare_names);
    }
    return status;
}

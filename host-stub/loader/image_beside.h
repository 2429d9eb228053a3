/* image_beside.h: libraries that a plugin brings with it. */
#ifndef ATTNPLUG_LOADER_IMAGE_BESIDE_H
#define ATTNPLUG_LOADER_IMAGE_BESIDE_H

#include "image.h"

/* $ORIGIN in a run path means the plugin's folder, but the copy that is opened lies elsewhere.  So
 * what the plugin needs of that folder is opened first, from there; the dynamic linker then knows
 * it by its DT_SONAME and looks no further.  These libraries are mapped where they lie: installers
 * rename over them. */
attn_status image_open_beside(const image_source *source, const elf_heads *heads, attn_error *err);

/* One entry of a run path with $ORIGIN filled in; false: it does not speak of $ORIGIN. *rest is the
 * entry behind it, NULL at the end. */
bool run_path_entry(const char *path, const char *origin, char *out, size_t capacity,
                    const char **rest);

/* "PATH TEXT" to the source's log. */
__attribute__((format(printf, 3, 4))) void image_say(const image_source *source, int32_t level,
                                                     const char *format, ...);

#endif

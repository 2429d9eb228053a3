/* table.h: CANN's calls as a test makes them itself, besides the plugin. */
#ifndef NPU_TABLE_H
#define NPU_TABLE_H

#include "cann_abi.h"

/* Those of libascendcl.so that the plugin does not use. */
aclError aclFinalize(void);
aclError aclrtCreateStream(aclrtStream *stream);
aclError aclrtDestroyStream(aclrtStream stream);

/* A call of the library below ASCEND_HOME_PATH, or the loader's path; ends the test without it. */
void *table_symbol(const char *library, const char *name);

#define RUNTIME(name)     ((__typeof__(name) *)table_symbol("libascendcl.so", #name))
#define DESCRIPTORS(name) ((__typeof__(name) *)table_symbol("libnnopbase.so", #name))
#define OPERATORS(name)   ((__typeof__(name) *)table_symbol("libopapi.so", #name))

#endif

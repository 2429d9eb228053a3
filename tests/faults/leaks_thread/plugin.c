/* Starts a thread that never ends, and which runs this file's code. */
#include "plain.h"

#include <pthread.h>
#include <unistd.h>

volatile int plugin_beats;

static void *beat(void *arg)
{
    for (;;) {
        plugin_beats++;
        usleep(1000);
    }
    return arg;
}

__attribute__((constructor)) static void start(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, beat, NULL) == 0) {
        pthread_detach(thread);
    }
}

PLAIN_OP("org.attnplug.test.bad", "1");

/* Opens, runs and closes teams whose workers are slow after everything that they look at. */
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#undef atomic_load
#define atomic_load(at)                                                      \
    __extension__({                                                          \
        __auto_type loaded = atomic_load_explicit(at, memory_order_seq_cst); \
        usleep(100);                                                         \
        loaded;                                                              \
    })
#include "cpu/team.c"

static void count(void *arg, int32_t item, int32_t worker) {
    (void)item, (void)worker;
    atomic_fetch_add((atomic_int *)arg, 1);
}

int main(void) {
    for (int round = 0; round < 200; round++) {
        atomic_int counted = 0;
        struct team *t;
        if (team_open(&t, 3)) return 1;
        if (round % 3) team_run(t, 7, count, &counted);
        team_close(t);
        if (atomic_load_explicit(&counted, memory_order_seq_cst) != (round % 3 ? 7 : 0)) return 2;
    }
    return puts("closed") < 0;
}

#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/status.h"
#include "float_env.h"

enum { SPINS_BEFORE_SLEEP = 20000, SPINS_BEFORE_YIELD = 2000 };

/* The gate says which run this is, whether it still takes workers, and how many are inside. A worker that has lost its
 * core is not waited for: it finds the gate shut when it comes back. The caller waits only for those inside. */
enum { OPEN = 1, INSIDE = 2, INSIDE_MASK = 0xfffe, RUN = 0x10000 };

/* A worker's own items, one after the other: it then reads memory in one long walk, up to an eighth faster than taking
 * turns. Who has done its own helps the others. */
struct share {
    _Alignas(64) atomic_int next;
    int32_t end;
};

struct team {
    pthread_t *threads; /* (count - 1) */
    int32_t count, started;
    /* The work of the current run: written while nobody is inside, read only inside. */
    team_fn *fn;
    void *arg;
    struct share *shares; /* (count) */
    _Alignas(64) atomic_uint gate;
    atomic_int sleepers;
    atomic_bool closing;
    pthread_mutex_t lock;
    pthread_cond_t wake;
};

struct seat {
    struct team *team;
    int32_t worker;
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_items(struct team *t, int32_t worker) {
    for (int32_t i = 0; i < t->count; i++) {
        struct share *s = &t->shares[(worker + i) % t->count];
        /* Looking first leaves a finished share's line with everyone: many workers pass by. */
        while (atomic_load_explicit(&s->next, memory_order_relaxed) < s->end) {
            int item = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
            if (item < s->end) t->fn(t->arg, item, worker);
        }
    }
}

static bool is_news(unsigned gate, unsigned last_run) { return gate / RUN != last_run && gate & OPEN; }

/* Waits for an open gate of another run than the last one. */
static void wait_for_run(struct team *t, unsigned last_run) {
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (is_news(atomic_load_explicit(&t->gate, memory_order_relaxed), last_run)) return;
        relax();
    }
    pthread_mutex_lock(&t->lock);
    atomic_fetch_add(&t->sleepers, 1);
    while (!is_news(atomic_load(&t->gate), last_run)) pthread_cond_wait(&t->wake, &t->lock);
    atomic_fetch_sub(&t->sleepers, 1);
    pthread_mutex_unlock(&t->lock);
}

static void *work(void *seat_pointer) {
    struct seat seat = *(struct seat *)seat_pointer;
    free(seat_pointer);
    struct team *t = seat.team;
    float_env_enter();
    for (unsigned last_run = 0;;) {
        wait_for_run(t, last_run);
        unsigned gate = atomic_load(&t->gate);
        while (gate & OPEN && !atomic_compare_exchange_weak(&t->gate, &gate, gate + INSIDE)) {
        }
        last_run = gate / RUN;
        if (!(gate & OPEN)) continue;
        if (atomic_load(&t->closing)) return NULL; /* asked inside: this gate may be the one that closing opened */
        take_items(t, seat.worker);
        atomic_fetch_sub_explicit(&t->gate, INSIDE, memory_order_release);
    }
}

/* The lock makes sure that a worker on its way to sleep either sees the new run or is counted as a sleeper. */
static void open_gate(struct team *t) {
    unsigned run = atomic_load_explicit(&t->gate, memory_order_relaxed) / RUN + 1;
    atomic_store(&t->gate, run * RUN | OPEN);
    if (atomic_load(&t->sleepers) == 0) return;
    pthread_mutex_lock(&t->lock);
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
}

static void shut_gate(struct team *t) {
    atomic_fetch_and_explicit(&t->gate, ~(unsigned)OPEN, memory_order_relaxed);
    for (int i = 0; atomic_load_explicit(&t->gate, memory_order_acquire) & INSIDE_MASK; i++) {
        if (i < SPINS_BEFORE_YIELD)
            relax();
        else
            sched_yield(); /* a worker has lost its core in the middle of an item: give it ours */
    }
}

void team_run(struct team *t, int32_t items, team_fn *fn, void *arg) {
    if (items <= 1 || !t || t->started == 0) {
        for (int32_t i = 0; i < items; i++) fn(arg, i, 0);
        return;
    }
    t->fn = fn;
    t->arg = arg;
    for (int32_t w = 0; w < t->count; w++) {
        atomic_store_explicit(&t->shares[w].next, (int)((int64_t)items * w / t->count), memory_order_relaxed);
        t->shares[w].end = (int32_t)((int64_t)items * (w + 1) / t->count);
    }
    open_gate(t);
    take_items(t, 0);
    shut_gate(t);
}

static int start_worker(struct team *t, int32_t worker) {
    struct seat *seat = malloc(sizeof *seat);
    if (!seat) return fail(LL_ENOMEM, "no memory for thread %d", worker);
    *seat = (struct seat){t, worker};
    if (pthread_create(&t->threads[worker - 1], NULL, work, seat)) {
        free(seat);
        return fail(LL_ENOMEM, "the system refused to start thread %d of %d", worker + 1, t->count);
    }
    t->started++;
    return LL_OK;
}

int team_open(struct team **out, int32_t threads) {
    struct team *t = aligned_alloc(64, (sizeof *t + 63) / 64 * 64);
    *out = NULL;
    if (!t) return fail(LL_ENOMEM, "no memory for a team of %d threads", threads);
    *t = (struct team){.count = threads};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    t->threads = calloc((size_t)threads, sizeof *t->threads);
    t->shares = aligned_alloc(64, (size_t)threads * sizeof *t->shares);
    int status = t->threads && t->shares ? LL_OK : fail(LL_ENOMEM, "no memory for a team of %d threads", threads);
    for (int32_t w = 1; w < threads && !status; w++) status = start_worker(t, w);
    if (status) {
        team_close(t);
        return status;
    }
    *out = t;
    return LL_OK;
}

void team_close(struct team *t) {
    if (!t) return;
    atomic_store(&t->closing, true);
    open_gate(t);
    for (int32_t w = 0; w < t->started; w++) pthread_join(t->threads[w], NULL);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->wake);
    free(t->threads);
    free(t->shares);
    free(t);
}

int32_t team_threads(const struct team *t) { return t->count; }

#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "map_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "status.h"

struct guarded {
    atomic_bool taken, lost;
    atomic_uintptr_t start; /* 0: none, or not yet */
    atomic_uintptr_t size;
};

static struct guarded maps[MAP_GUARD_LIMIT];
static struct sigaction before;
static uintptr_t page_size;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int failed; /* errno of the installation */

/* The map around an address. A map that is given up meanwhile is not one that anybody still reads. */
static struct guarded *find(uintptr_t address, uintptr_t *end) {
    for (int i = 0; i < MAP_GUARD_LIMIT; i++) {
        uintptr_t start = atomic_load(&maps[i].start), size = atomic_load(&maps[i].size);
        if (start && address - start < size && atomic_load(&maps[i].start) == start) {
            *end = start + size;
            return &maps[i];
        }
    }
    return NULL;
}

/* Where one page is gone so are all behind it: one call, however large the model, and few maps in the process. */
static bool replace_rest(uintptr_t address) {
    uintptr_t end = 0, page = address & ~(page_size - 1);
    struct guarded *map = find(address, &end);
    if (!map) return false;
    atomic_store(&map->lost, true); /* before anybody can read a zero */
    void *rest = (void *)page;      /* NOLINT: the address that the kernel named */
    return mmap(rest, end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

static void pass_on(int number, siginfo_t *info, void *context) {
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler == SIG_IGN && info->si_code <= 0) { /* sent by somebody, not met while reading */
        return;
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else {
        struct sigaction usual = {.sa_handler = SIG_DFL};
        sigaction(number, &usual, NULL);
        raise(number); /* delivered when the handler has returned, at the place that failed */
    }
}

/* Only what is safe in a signal's handler: atomics without locks, and system calls. */
static void on_bus_error(int number, siginfo_t *info, void *context) {
    int saved = errno;
    bool outlived = info->si_code == BUS_ADRERR && replace_rest((uintptr_t)info->si_addr);
    errno = saved;
    if (!outlived) pass_on(number, info, context);
}

static void install(void) {
    struct sigaction ours = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&ours.sa_mask);
    if (sigaction(SIGBUS, NULL, &before) || sigaction(SIGBUS, &ours, NULL)) failed = errno;
}

int map_guard_install(void) {
    pthread_once(&once, install);
    return failed ? fail(LL_EUNSUPPORTED, "SIGBUS cannot be handled: error %d", failed) : LL_OK;
}

int map_guard_add(const void *start, uint64_t size) {
    for (int i = 0; i < MAP_GUARD_LIMIT; i++) {
        if (atomic_exchange(&maps[i].taken, true)) continue;
        atomic_store(&maps[i].lost, false);
        atomic_store(&maps[i].size, (uintptr_t)size);
        atomic_store(&maps[i].start, (uintptr_t)start);
        return i;
    }
    return MAP_UNGUARDED;
}

void map_guard_remove(int number) {
    if (number == MAP_UNGUARDED) return;
    atomic_store(&maps[number].start, 0);
    atomic_store(&maps[number].taken, false);
}

bool map_guard_lost(int number) { return number != MAP_UNGUARDED && atomic_load(&maps[number].lost); }

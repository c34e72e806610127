#define _GNU_SOURCE

#include "roof.h"

#include <stdatomic.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/status.h"
#include "cpuinfo.h"
#include "team.h"

/* A pass over a unit takes a few milliseconds, less than a time slice, so that on a busy machine some pass is
 * undisturbed. A pass over memory reads all of the buffer, which is larger than the last cache: parts of it would be
 * found there now and then (a 480 MB cache made 38 to 47 GB/s of 34). */
enum { CHUNK = 1 << 20, LEAST_CHUNKS = 64, UNITS_PER_THREAD = 16 };
enum { HUGE_PAGE = 2 << 20, MAX_THREADS = 1024, LEAST_PASSES = 3 };

static const double READ_SECONDS = 0.4, UNIT_SECONDS = 0.15; /* of measuring, each */
static const uint64_t LEAST_BUFFER = (uint64_t)LEAST_CHUNKS * CHUNK, MOST_BUFFER = (uint64_t)1 << 36;

/* ---- the units in use ---- */

struct units {
    roof_read_fn *read;
    roof_unit_fn *int8, *bf16; /* NULL: there is none */
};

static uint64_t read_plain(const uint8_t *p, size_t bytes) {
    const uint64_t *words = (const void *)p;
    uint64_t sum = 0;
    for (size_t i = 0; i < bytes / sizeof *words; i++) sum += words[i];
    return sum;
}

static struct units units_of(enum cpu_level level, uint32_t features) {
    struct units u = {.read = read_plain};
#if defined(LL_X86)
    if (level >= CPU_AVX2) {
        u.read = roof_read_avx2;
        u.int8 = features & CPU_HAS_AVX_VNNI ? roof_int8_avx_vnni : roof_int8_avx2;
    }
    if (level >= CPU_AVX512) {
        u.read = roof_read_avx512;
        u.int8 = roof_int8_avx512;
        if (features & CPU_HAS_AVX512_BF16) u.bf16 = roof_bf16_avx512;
    }
    if (level >= CPU_AMX) {
        u.int8 = roof_int8_amx;
        u.bf16 = roof_bf16_amx;
    }
#else
    (void)level, (void)features;
#endif
    return u;
}

/* ---- passes over the team ---- */

struct passes {
    struct team *team;
    int32_t items;   /* of one pass: many more than threads, so that one that comes late costs little */
    uint8_t *buffer; /* (items, CHUNK) */
    struct units units;
    roof_unit_fn *unit; /* the one that works */
    atomic_ullong done; /* multiply-adds, or sums nobody needs */
};

static void touch_item(void *arg, int32_t item, int32_t worker) {
    struct passes *p = arg;
    (void)worker;
    for (int64_t i = 0; i < CHUNK; i += 64) p->buffer[(int64_t)item * CHUNK + i] = 1;
}

static void read_item(void *arg, int32_t item, int32_t worker) {
    struct passes *p = arg;
    const uint8_t *chunk = p->buffer + (int64_t)item * CHUNK;
    (void)worker;
    atomic_fetch_add_explicit(&p->done, p->units.read(chunk, CHUNK), memory_order_relaxed);
}

static void unit_item(void *arg, int32_t item, int32_t worker) {
    struct passes *p = arg;
    (void)item, (void)worker;
    atomic_fetch_add_explicit(&p->done, (unsigned long long)p->unit(), memory_order_relaxed);
}

/* Seconds of the quickest pass. */
static double best_pass(struct passes *p, team_fn *fn, double budget) {
    double start = clock_seconds(), best = 0;
    for (int i = 0; i < LEAST_PASSES || clock_seconds() - start < budget; i++) {
        double begun = clock_seconds();
        atomic_store(&p->done, 0);
        team_run(p->team, p->items, fn, p);
        double took = clock_seconds() - begun;
        if (i == 0 || took < best) best = took;
    }
    return best;
}

static double multiply_adds_per_second(struct passes *p, roof_unit_fn *unit) {
    if (!unit) return 0;
    p->unit = unit;
    p->items = UNITS_PER_THREAD * team_threads(p->team);
    double seconds = best_pass(p, unit_item, UNIT_SECONDS);
    return (double)atomic_load(&p->done) / seconds;
}

/* On huge pages where the system gives them, so that it is memory that is measured and not the walk through tables. */
static int bytes_per_second(struct passes *p, uint64_t buffer_bytes, double *out) {
    p->items = (int32_t)(buffer_bytes / CHUNK);
    size_t bytes = (size_t)p->items * CHUNK, mapped = bytes + HUGE_PAGE;
    uint8_t *map = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return fail(LL_ENOMEM, "no memory to measure reading with: %llu MB", (unsigned long long)buffer_bytes >> 20);
    p->buffer = map + (HUGE_PAGE - (uintptr_t)map % HUGE_PAGE) % HUGE_PAGE;
#if defined(MADV_HUGEPAGE)
    madvise(p->buffer, bytes, MADV_HUGEPAGE);
#endif
    team_run(p->team, p->items, touch_item, p);
    *out = (double)bytes / best_pass(p, read_item, READ_SECONDS);
    munmap(map, mapped);
    return LL_OK;
}

int ll_measure_roof(int32_t threads, uint64_t buffer_bytes, ll_roof *out) {
    enum cpu_level level = CPU_SCALAR;
    struct cpu_answers answers;
    *out = (ll_roof){0};
    if (threads < 0 || threads > MAX_THREADS)
        return fail(LL_EINVAL, "threads: expected 0 to %d, found %d", MAX_THREADS, threads);
    if (buffer_bytes < LEAST_BUFFER || buffer_bytes > MOST_BUFFER)
        return fail(LL_EINVAL, "buffer_bytes: expected %llu to %llu, found %llu", (unsigned long long)LEAST_BUFFER,
                    (unsigned long long)MOST_BUFFER, (unsigned long long)buffer_bytes);
    TRY(cpu_level_in_use(&level));
    cpu_ask(&answers); /* also asks for the tile registers, which the team's threads inherit */
    struct passes p = {.units = units_of(level, cpu_features(&answers))};
    TRY(team_open(&p.team, threads ? threads : cpu_count()));
    double bytes = 0;
    int status = bytes_per_second(&p, buffer_bytes, &bytes);
    if (!status) {
        out->read_gb_s = 1e-9 * bytes;
        out->int8_tops = 2e-12 * multiply_adds_per_second(&p, p.units.int8);
        out->bf16_tflops = 2e-12 * multiply_adds_per_second(&p, p.units.bf16);
    }
    team_close(p.team);
    return status;
}

/* The main function of the fuzz targets when no libFuzzer is linked: replays files, or makes mutants of them.
 *
 *     fuzz_TARGET FILE...                          each file once
 *     fuzz_TARGET --mutate SEED COUNT FILE...      COUNT mutants; mutant i depends on SEED and i alone
 *
 * The input at hand lies in $TMPDIR/fuzz_input.PID: after a crash it is the reproducer; otherwise it is removed.
 * With clang: -fsanitize=fuzzer -DLIBFUZZER. */
#ifndef FUZZ_MAIN_H
#define FUZZ_MAIN_H
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char fuzz_path[512]; /* where the input at hand lies as a file */

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

static void fuzz_write(const uint8_t *data, size_t size) {
    if (!fuzz_path[0]) {
        const char *folder = getenv("TMPDIR");
        snprintf(fuzz_path, sizeof fuzz_path, "%s/fuzz_input.%d", folder ? folder : "/tmp", (int)getpid());
    }
    unlink(fuzz_path); /* a new file each time: some filesystems flush one that is rewritten */
    int fd = open(fuzz_path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, data + done, size - done);
        CHECK(n > 0);
        done += (size_t)n;
    }
    close(fd);
}

#ifndef LIBFUZZER

struct fuzz_bytes {
    uint8_t *data;
    size_t size;
};

static uint64_t fuzz_random(uint64_t *state) { /* SplitMix64: https://prng.di.unimi.it/splitmix64.c */
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static struct fuzz_bytes fuzz_read(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(2);
    }
    fseek(file, 0, SEEK_END);
    struct fuzz_bytes bytes = {NULL, (size_t)ftell(file)};
    rewind(file);
    bytes.data = malloc(bytes.size + 1);
    CHECK(bytes.data && fread(bytes.data, 1, bytes.size, file) == bytes.size);
    fclose(file);
    return bytes;
}

/* One change of `b` (room for `room` bytes), within the first 16 KiB with probability 3/4: there the structure lies. */
static void fuzz_change(struct fuzz_bytes *b, size_t room, const struct fuzz_bytes *other, uint64_t *state) {
    // clang-format off
    static const uint64_t edges[] = {0, 1, 2, 4, 7, 8, 12, 13, 31, 32, 33, 255, 256, 65535, 65536, 65537, 0x7FFFFFFF,
                                     0x80000000, 0xFFFFFFFF, 0x100000000, INT64_MAX, (uint64_t)INT64_MAX + 1,
                                     UINT64_MAX - 31, UINT64_MAX};
    // clang-format on
    if (b->size == 0) return;
    size_t reach = fuzz_random(state) % 4 && b->size > 16384 ? 16384 : b->size;
    size_t at = fuzz_random(state) % reach, left = b->size - at, n = 1 + fuzz_random(state) % 64;
    uint64_t value = edges[fuzz_random(state) % (sizeof edges / sizeof *edges)];
    size_t from = fuzz_random(state) % (other->size + 1);
    switch (fuzz_random(state) % 8) {
    case 0: b->data[at] ^= (uint8_t)(1u << fuzz_random(state) % 8); break;
    case 1: b->data[at] = (uint8_t)fuzz_random(state); break;
    case 2: memcpy(b->data + at, &value, left < 8 ? left : 8); break;
    case 3: memcpy(b->data + at, &value, left < 4 ? left : 4); break;
    case 4: /* a number near the true one */
        if (left < 8) break;
        memcpy(&value, b->data + at, 8);
        value += fuzz_random(state) % 17 - 8;
        memcpy(b->data + at, &value, 8);
        break;
    case 5: b->size = at; break;
    case 6: /* bytes of another seed written over */
        n = n < left ? n : left;
        n = n < other->size - from ? n : other->size - from;
        memcpy(b->data + at, other->data + from, n);
        break;
    default: /* bytes repeated, or taken out */
        n = n < left ? n : left;
        if (fuzz_random(state) % 2 && b->size + n <= room) {
            memmove(b->data + at + n, b->data + at, left);
            b->size += n;
        } else {
            memmove(b->data + at, b->data + at + n, left - n);
            b->size -= n;
        }
    }
}

static void fuzz_mutate(uint64_t seed, uint64_t count, const struct fuzz_bytes *seeds, uint64_t n) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t state = seed * 0x9E3779B97F4A7C15u + i;
        const struct fuzz_bytes *from = &seeds[fuzz_random(&state) % n], *other = &seeds[fuzz_random(&state) % n];
        size_t room = from->size + 4096;
        struct fuzz_bytes b = {malloc(room), from->size};
        CHECK(b.data);
        memcpy(b.data, from->data, from->size);
        for (uint64_t k = 1 + fuzz_random(&state) % 6; k > 0; k--) fuzz_change(&b, room, other, &state);
        LLVMFuzzerTestOneInput(b.data, b.size);
        free(b.data);
    }
}

static void fuzz_report(void); /* the target's own last words */

int main(int argc, char **argv) {
    int first = argc > 3 && !strcmp(argv[1], "--mutate") ? 4 : 1;
    int n = argc - first;
    if (n < 1) {
        fprintf(stderr, "usage: %s [--mutate SEED COUNT] FILE...\n", argv[0]);
        return 2;
    }
    struct fuzz_bytes *seeds = calloc((size_t)n, sizeof *seeds);
    CHECK(seeds);
    for (int i = 0; i < n; i++) seeds[i] = fuzz_read(argv[first + i]);
    if (first == 1) {
        for (int i = 0; i < n; i++) LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].size);
    } else {
        printf("seed %s\n", argv[2]);
        fflush(stdout);
        fuzz_mutate(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), seeds, (uint64_t)n);
    }
    for (int i = 0; i < n; i++) free(seeds[i].data);
    free(seeds);
    if (fuzz_path[0]) unlink(fuzz_path);
    fuzz_report();
    return 0;
}
#endif
#endif

#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* madvise */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "map_guard.h"
#include "printable.h"
#include "status.h"

const char *file_shown(char out[SHOWN_PATH], const char *path) {
    enum { KEPT = 250 };
    uint64_t length = strlen(path);
    if (length <= KEPT) return printable(out, SHOWN_PATH, path, length);
    memcpy(out, "...", 3);
    printable(out + 3, SHOWN_PATH - 3, path + length - KEPT, KEPT);
    return out;
}

static int fail_errno(const char *shown, const char *verb) {
    char reason[128] = "unknown error";
    int number = errno;
    if (strerror_r(number, reason, sizeof reason)) reason[0] = 0;
    return fail(number == ENOMEM ? LL_ENOMEM : LL_EIO, "%s: cannot be %s: %s", shown, verb, reason);
}

static const char *kind_of(mode_t mode) {
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISCHR(mode)  ? "a character device"
           : S_ISBLK(mode)  ? "a block device"
           : S_ISSOCK(mode) ? "a socket"
                            : "something else";
}

static int map(struct file *file, const char *shown) {
    struct stat info;
    if (fstat(file->fd, &info)) return fail_errno(shown, "examined");
    if (!S_ISREG(info.st_mode)) {
        return fail(LL_EIO, "%s: expected a regular file, found %s", shown, kind_of(info.st_mode));
    }
    if (info.st_size == 0) return fail(LL_EFORMAT, "%s: expected a GGUF file, found an empty one", shown);
    if ((uint64_t)info.st_size > PTRDIFF_MAX) return fail(LL_ENOMEM, "%s: too large to be mapped here", shown);
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, file->fd, 0);
    if (data == MAP_FAILED) return fail_errno(shown, "mapped");
#if defined(MADV_HUGEPAGE)
    /* Where the file system can, what is read from now on lies in pages of 2 MB: weights then come at the full speed of
     * memory, half as fast again as from small pages. What the system has in small pages already stays so. */
    madvise(data, (size_t)info.st_size, MADV_HUGEPAGE);
#endif
    file->data = data;
    file->size = (uint64_t)info.st_size;
    file->guard = map_guard_add(data, file->size);
    file->changed[0] = (int64_t)info.st_mtim.tv_sec;
    file->changed[1] = (int64_t)info.st_mtim.tv_nsec;
    return LL_OK;
}

int file_open(struct file *file, const char *path, const char *shown) {
    *file = (struct file){.fd = -1, .guard = MAP_UNGUARDED};
    /* Without O_NONBLOCK a pipe that nobody writes to would hold the caller for ever. */
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file->fd < 0) return fail_errno(shown, "opened");
    int status = map(file, shown);
    if (status) file_close(file);
    return status;
}

const char *file_damage(const struct file *file) {
    struct stat info;
    if (map_guard_lost(file->guard)) return "was truncated or cannot be read any more";
    if (fstat(file->fd, &info)) return "cannot be examined any more";
    if ((uint64_t)info.st_size < file->size) return "was truncated";
    bool same = (uint64_t)info.st_size == file->size && (int64_t)info.st_mtim.tv_sec == file->changed[0] &&
                (int64_t)info.st_mtim.tv_nsec == file->changed[1];
    return same ? NULL : "was changed";
}

void file_close(struct file *file) {
    if (file->fd >= 0) close(file->fd);
    map_guard_remove(file->guard);
    if (file->data) munmap((void *)(uintptr_t)file->data, (size_t)file->size);
    *file = (struct file){.fd = -1, .guard = MAP_UNGUARDED};
}

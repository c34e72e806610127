/* A file mapped read-only. It must be a regular file that nobody writes to: replaced by renaming, the map keeps the
 * old bytes; written to, it is another file, which file_damage() tells; truncated, reading what is gone ends the
 * process (SIGBUS), as with every mapped file, unless the program has asked for the guard of map_guard.h. */
#ifndef FILE_H
#define FILE_H
#include <stdint.h>

struct file {
    const uint8_t *data; /* (size) bytes */
    uint64_t size;
    int fd;              /* stays open, so that the file is examined itself and not what has its name by now */
    int guard;           /* the map's number in map_guard.h */
    int64_t changed[2];  /* when its content last changed: seconds, nanoseconds */
};

enum { SHOWN_PATH = 320 };

/* The end of a path, fit for a sentence. */
const char *file_shown(char out[SHOWN_PATH], const char *path);

int file_open(struct file *file, const char *path, const char *shown);
/* What has become of the file since it was mapped, to follow its name in a sentence; NULL while it is as it was. Takes
 * a microsecond. A write within the same tick of the system's clock as the last before it is not seen. */
const char *file_damage(const struct file *file);
void file_close(struct file *file);

#endif

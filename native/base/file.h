/* A file mapped read-only. It must be a regular file that nobody writes to: replaced by renaming, the map keeps the
 * old bytes; truncated in place, reading what is gone ends the process (SIGBUS), as with every mapped file. */
#ifndef FILE_H
#define FILE_H
#include <stdint.h>

struct file {
    const uint8_t *data; /* (size) bytes */
    uint64_t size;
    int fd;              /* open until file_settle; -1 afterwards */
    int64_t changed[2];  /* when its content last changed: seconds, nanoseconds */
};

enum { SHOWN_PATH = 320 };

/* The end of a path, fit for a sentence. */
const char *file_shown(char out[SHOWN_PATH], const char *path);

int file_open(struct file *file, const char *path, const char *shown);
/* To be called when the file has been read once: fails if it was changed meanwhile. */
int file_settle(struct file *file, const char *shown);
void file_close(struct file *file);

#endif

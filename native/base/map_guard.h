/* Outliving the end of a mapped file. Whoever reads a map where the file is no more, because it was cut short or its
 * disk failed, gets SIGBUS, which by default ends the process. Once map_guard_install() was called, the handler puts
 * pages of zeros over the rest of the map and marks the map as lost: the thread reads on, the step ends as every step
 * does, and who asks map_guard_lost() before using what came of it knows that it is worthless.
 *
 * Jumping out of the read instead would leave a team of threads waiting for the one that jumped.
 *
 * What a signal does is a property of the process, and its handler can be handed nothing. So this file holds the only
 * state of the library that no handle owns, and touches the process only when a program asks for it. A SIGBUS that is
 * none of ours goes to whoever was there before. Maps beyond the first LIMIT that are open at once are not guarded. */
#ifndef MAP_GUARD_H
#define MAP_GUARD_H
#include <stdbool.h>
#include <stdint.h>

enum { MAP_GUARD_LIMIT = 256, MAP_UNGUARDED = -1 };

/* From any thread, any number of times. */
int map_guard_install(void);

/* The number by which a map is known here, or MAP_UNGUARDED. It must be given up before the map is. */
int map_guard_add(const void *start, uint64_t size);
void map_guard_remove(int number);
bool map_guard_lost(int number);

#endif

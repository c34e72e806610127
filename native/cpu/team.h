/* The threads of a CPU device. The caller is worker 0 and takes part; the others wait between runs, first spinning
 * for the few microseconds between two operations of a step, then asleep, so that an idle runner uses no CPU.
 * Each has its share of the items, neighbours, which it takes one by one, and then helps the others: a worker that
 * loses its core to another process only delays its own item. */
#ifndef TEAM_H
#define TEAM_H
#include <stdint.h>

struct team;

/* Called once per item in [0, items); `worker` names the thread's scratch memory. */
typedef void team_fn(void *arg, int32_t item, int32_t worker);

int team_open(struct team **out, int32_t threads);
void team_close(struct team *team);
int32_t team_threads(const struct team *team);
/* Returns when every item is done. One item, or a team of one or none (NULL), runs in the caller. */
void team_run(struct team *team, int32_t items, team_fn *fn, void *arg);

#endif

/* Where the time of a step goes: a device that does what another one does and keeps account of each operation. It
 * reads the clock once per operation, so what lies between two of them belongs to the second. */
#ifndef PROFILE_H
#define PROFILE_H
#include "ops.h"

struct profile;

/* Puts a profile in front of `device`, which is then closed with it. `config` has no default left in it. */
int profile_open(struct profile **out, struct device *device, const ll_runner_config *config);
/* The clock starts here: what happened since the last operation was not the runner's. NULL does nothing. */
void profile_start(struct profile *p);
/* The time since the last operation was this one's. NULL does nothing. */
void profile_stop(struct profile *p, int32_t op);
void profile_get(const struct profile *p, ll_op_work *out);

#endif

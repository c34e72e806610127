/* What ll_runner is: a model on a device, and what sampling needs. */
#ifndef RUNNER_H
#define RUNNER_H
#include "model/forward.h"
#include "profile.h"

struct ll_runner {
    const struct ll_model *model;
    ll_runner_config config;
    struct device device;
    struct profile *profile; /* NULL unless config.profile; the device owns it */
    void *sample_scratch;
    struct pass parts; /* what ll_begin() began */
    bool parts_left;   /* and ll_advance() has not ended */
    int32_t n_samples; /* whose logits there are: 0 after a pass that is not done, or failed */
};

#endif

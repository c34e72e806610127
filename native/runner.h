/* What ll_runner is: a model on a device, and what sampling needs. */
#ifndef RUNNER_H
#define RUNNER_H
#include "ops.h"
#include "profile.h"

struct ll_runner {
    const struct ll_model *model;
    ll_runner_config config;
    struct device device;
    struct profile *profile; /* NULL unless config.profile; the device owns it */
    void *sample_scratch;
    int32_t n_samples; /* of the last step; 0 when there was none or it failed */
};

#endif

/* Stands in for the CUDA device in a library built without it. */
#include "base/status.h"
#include "ops.h"

static int absent(void) {
    return fail(LL_EDEVICE, "device cuda: this library was built without CUDA; the device cpu is there");
}

int cuda_plan(const struct ll_model *model, const ll_runner_config *config, ll_plan *plan) {
    (void)model, (void)config, (void)plan;
    return absent();
}

int cuda_open(struct device *out, const struct ll_model *model, const ll_runner_config *config) {
    (void)out, (void)model, (void)config;
    return absent();
}

int32_t ll_cuda_devices(void) { return 0; }

const char *ll_cuda_status(void) { return "this library was built without CUDA"; }

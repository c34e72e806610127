/* The forward pass over one step of a ragged batch. */
#ifndef FORWARD_H
#define FORWARD_H
#include "ops.h"

int forward(const struct device *d, const struct step *s);

#endif

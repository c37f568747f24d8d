#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "random/stream.h"

namespace kinefit {

// Zero with chance `dropout`, else 1 / (1 - dropout), of x's shape and dtype, for the rows from
// `first_row` of a batch on. One draw of `random`, whatever the shape, seeds the mask, and every
// device makes the same.
at::Tensor DropoutMask(const at::Tensor& x, int64_t first_row, double dropout,
                       RandomStream& random);

}  // namespace kinefit

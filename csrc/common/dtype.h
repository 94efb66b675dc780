// From the C interface's dtype code to a template argument.
#pragma once

#include "mclr_fast.h"
#include "vector.h"

namespace mclr {

// body(T{}) with the element type that `dtype` names.
template <class Body>
MCLR_INLINE void with_dtype(int64_t dtype, Body body) {
    if (dtype == MCLR_FLOAT32)
        body(float{});
    else
        body(bfloat16{});
}

// A multiple of `period` that fills whole registers, so that rows of it need no part loads, and is long enough
// for a loop over it.
MCLR_INLINE int64_t whole_registers(int64_t period) {
    constexpr int64_t kLong = 512;
    int64_t length = period;
    while (length % kWidth) length += period;
    return length < kLong ? length * (kLong / length) : length;
}

}  // namespace mclr

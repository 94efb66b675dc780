// Rows of any width, in buffers of floats in the first cache, without part registers: a row's last register
// runs over into the next row, which is written after it. So every buffer ends with kWidth floats of slack,
// and rows are written in ascending order.
#pragma once

#include "vector.h"

namespace mclr {

// to[r to_stride + i] = from[r from_stride + i] for i < width.
MCLR_INLINE void copy_rows(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t rows,
                           int64_t width) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < width; i += kWidth)
            store(to + r * to_stride + i, load(from + r * from_stride + i, All{}), All{});
}

// to[r width + i] = values[r] for i < width.
MCLR_INLINE void spread(const float* values, float* to, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < width; i += kWidth) store(to + r * width + i, fill(values[r]), All{});
}

// The first `count` elements of x, zeros after them.
MCLR_INLINE Vector keep_first(Vector x, int64_t count) {
    Ints lane;
    for (int i = 0; i < kWidth; ++i) lane[i] = i;
    return lane < static_cast<int32_t>(count) ? x : fill(0);
}

// dots[r] = sum over i < width of a[r width + i] b[r width + i].
MCLR_INLINE void row_dots(const float* a, const float* b, float* dots, int64_t rows, int64_t width) {
    const int64_t whole = width / kWidth * kWidth;
    for (int64_t r = 0; r < rows; ++r) {
        const float *x = a + r * width, *y = b + r * width;
        Vector total = fill(0);
        for (int64_t i = 0; i < whole; i += kWidth) total += load(x + i, All{}) * load(y + i, All{});
        if (whole < width) total += keep_first(load(x + whole, All{}) * load(y + whole, All{}), width - whole);
        dots[r] = sum(total);
    }
}

}  // namespace mclr

// Loops over the rows of many tensors at once.
#pragma once

#include "parallel.h"

namespace mclr {

// body(tensor, row) for every row of `count` tensors, each thread doing about as many elements. rows_of(tensor)
// and size_of(tensor) give a tensor's rows and their length.
template <class Rows, class Size, class Body>
inline void for_tensor_rows(int64_t count, Rows rows_of, Size size_of, Body body) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; ++i) total += rows_of(i) * size_of(i);
#pragma omp parallel if (total > kWorthTheThreads)
    {
        int64_t rank = omp_get_thread_num(), size = omp_get_num_threads(), before = 0;
        int64_t begin = total * rank / size, end = rank + 1 == size ? total + 1 : total * (rank + 1) / size;
        for (int64_t i = 0; i < count; ++i)
            for (int64_t row = 0; row < rows_of(i); ++row, before += size_of(i))
                if (begin <= before && before < end) body(i, row);
        end_streaming();
    }
}

}  // namespace mclr

// Loops over independent items, shared out among OpenMP's threads.
#pragma once

#include <omp.h>

#include <cstdint>

#include "stream.h"

namespace mclr {

constexpr int64_t kWorthTheThreads = 32768;  // elements

// body(begin, end) on each thread's contiguous share of `count` items of `cost` elements each; small loops
// stay on one thread, where waking the others would take longer than the work. It is all threads or one:
// OpenMP runtimes end and start threads when the size of the team changes.
template <class Body>
inline void parallel_for(int64_t count, int64_t cost, Body body) {
    if (count < 2 || count * cost < kWorthTheThreads || omp_get_max_threads() == 1) {
        body(int64_t{0}, count);
        return end_streaming();
    }
#pragma omp parallel
    {
        int64_t rank = omp_get_thread_num(), size = omp_get_num_threads();
        body(count * rank / size, count * (rank + 1) / size);
        end_streaming();
    }
}

}  // namespace mclr

#pragma once

// What the right answers are: the CPU's.

#include <faiss_ext/gpu/faiss/FaissVersion.h>

#include "Run.h"

namespace scenarios {

using faiss_ext::gpu::idx_t;

/// The k nearest vectors of `base` [n, d] to each query. Labels are compared
/// through their distances, because ties may come in any order; not so if the
/// answer is `exact`, which has ties by label. distances may be nullptr: not
/// asked for. Throws Mismatch.
void requireNeighbours(
        const std::vector<float>& base,
        const std::vector<float>& queries,
        int d,
        int k,
        bool innerProduct,
        bool exact,
        const float* distances,
        const idx_t* labels);

/// Rows of `found` are the vectors `keys` of `base`, or `from` minus these; -1
/// is zeros. Throws Mismatch.
void requireRows(
        const std::vector<float>& base,
        int d,
        const std::vector<idx_t>& keys,
        const std::vector<float>& from,
        const Bytes& found);

} // namespace scenarios

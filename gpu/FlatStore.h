#pragma once

#include <faiss_ext/gpu/Export.h>
#include <faiss_ext/gpu/FaissVersion.h>

namespace faiss {
namespace gpu {
class FlatIndex;
}
} // namespace faiss

namespace faiss_ext {
namespace gpu {

/// How many vectors the store of a flat index holds: after an `add` of Faiss'
/// that failed, not always as many as the index says.
FAISS_EXT_API idx_t vectorsIn(const faiss::gpu::FlatIndex& store);

} // namespace gpu
} // namespace faiss_ext

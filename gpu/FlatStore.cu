// Faiss' header of the store needs a CUDA compiler; nothing here runs on a GPU.

#include <faiss_ext/gpu/FlatStore.h>

#include <faiss/gpu/impl/FlatIndex.cuh>

namespace faiss_ext {
namespace gpu {

idx_t vectorsIn(const faiss::gpu::FlatIndex& store) {
    return store.getSize();
}

} // namespace gpu
} // namespace faiss_ext

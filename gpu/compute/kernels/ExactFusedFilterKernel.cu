#include <cuda.h>

#include <algorithm>

#include <faiss_ext/gpu/compute/kernels/ExactFusedFilter.h>
#include <faiss_ext/gpu/compute/kernels/FusedFilterComparing.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

using namespace fused;

// A block multiplies tiles of queries with tiles of vectors, one after the
// other, and compares the scores while they are in registers. One warp has the
// copies brought to shared memory, a second one what is known of the vectors,
// and two groups of four warps multiply and compare.

/// Of each thread, once the warps have their tasks: of the 168 that they begin
/// with.
constexpr int kCopyingRegisters = 56;
constexpr int kComparingRegisters = 224;
/// Copies of a section: less than a second level cache has room for.
constexpr idx_t kSectionBytes = 16 << 20;
/// With fewer tiles of queries each vector is read so seldom that sections are
/// not worth their beginnings.
constexpr idx_t kSectionedQueryTiles = 5;

template <typename S>
__global__ void __launch_bounds__(kThreads, 1) fusedFilterKernel(
        const __grid_constant__ Filtering filtering,
        const __grid_constant__ CUtensorMap queryMap,
        const __grid_constant__ CUtensorMap vectorMap) {
    if (filtering.again && *filtering.queries.againCount == 0) {
        return;
    }
    extern __shared__ char dynamic[];
    __shared__ Shared<S> shared;
    const uint32_t offset =
            hopper::sharedAddress(dynamic) % hopper::kTileAlignment;
    const Tiles<S> tiles(
            dynamic + (offset ? hopper::kTileAlignment - offset : 0),
            filtering.depth);
    if (threadIdx.x == 0) {
        shared.initialise(filtering.stages);
    }
    // (The loops below begin with a wait for all threads.)
    Part part(filtering);
    if (threadIdx.x < hopper::kWarpgroup) {
        hopper::keepRegisters<kCopyingRegisters>();
        const int warp = threadIdx.x / 32;
        const Metric metric = filtering.state.terms->metric;
        Place copies;
        Place terms;
        while (part.begin()) {
            hopper::waitForBlock<kThreads>();
            // The queries are read.
            hopper::waitForBlock<kThreads>();
            if (!shared.hasRows()) {
                continue;
            }
            if (threadIdx.x == 0) {
                bringCopies(
                        filtering,
                        &queryMap,
                        &vectorMap,
                        tiles,
                        shared,
                        part,
                        copies);
            } else if (warp == 1) {
                bringTerms(filtering, metric, shared, part, terms);
            }
        }
    } else {
        hopper::takeRegisters<kComparingRegisters>();
        Comparing<S> comparing(filtering, shared, tiles);
        while (part.begin()) {
            // Nobody needs the terms of the former queries any more.
            hopper::waitForBlock<kThreads>();
            comparing.readRow(part);
            hopper::waitForBlock<kThreads>();
            if (!shared.hasRows()) {
                continue;
            }
            comparing.run(part);
        }
    }
}

/// The driver's, which is not linked.
using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

EncodeTiled findEncode() {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    const cudaError_t error = cudaGetDriverEntryPointByVersion(
            "cuTensorMapEncodeTiled",
            &found,
            12000,
            cudaEnableDefault,
            &result);
#else
    const cudaError_t error = cudaGetDriverEntryPoint(
            "cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess
                   ? reinterpret_cast<EncodeTiled>(found)
                   : nullptr;
}

EncodeTiled encodeTiled() {
    static const EncodeTiled encode = findEncode();
    return encode;
}

/// Of copies [count, width], `stride` apart.
cudaError_t mapOf(
        const Half* copies,
        idx_t count,
        int width,
        idx_t stride,
        CUtensorMap& map) {
    const EncodeTiled encode = encodeTiled();
    if (!encode) {
        return cudaErrorNotSupported;
    }
    const cuuint64_t sizes[] = {
            static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(count)};
    const cuuint64_t strides[] = {
            static_cast<cuuint64_t>(stride) * sizeof(Half)};
    const cuuint32_t tile[] = {hopper::kTileWidth, kCopiedRows};
    const cuuint32_t every[] = {1, 1};
    const CUresult result =
            encode(&map,
                   CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                   2,
                   const_cast<Half*>(copies),
                   sizes,
                   strides,
                   tile,
                   every,
                   CU_TENSOR_MAP_INTERLEAVE_NONE,
                   CU_TENSOR_MAP_SWIZZLE_128B,
                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/// What a block may have, but for what it always has.
template <typename S>
constexpr int dynamicBytes() {
    constexpr int kAll = 227 << 10;
    return kAll - static_cast<int>(sizeof(Shared<S>)) - 1024;
}

template <typename S>
cudaError_t launch(
        FilterPass pass,
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const Half* copies,
        idx_t stride,
        cudaStream_t stream) {
    int processors = 0;
    cudaError_t error = multiprocessors(processors);
    const int width = copyWidth(queries.d);
    CUtensorMap queryMap;
    CUtensorMap vectorMap;
    if (error == cudaSuccess) {
        error = mapOf(queries.copies, queries.n, width, width, queryMap);
    }
    if (error == cudaSuccess) {
        error = mapOf(copies, rows.count, width, stride, vectorMap);
    }
    Filtering filtering;
    filtering.rows = rows;
    filtering.state = state;
    filtering.queries = queries;
    filtering.again = pass == FilterPass::Again;
    filtering.queryTiles = (queries.n + S::kRows - 1) / S::kRows;
    filtering.tiles = (rows.count + kColumns - 1) / kColumns;
    filtering.sectionTiles =
            filtering.queryTiles < kSectionedQueryTiles
                    ? filtering.tiles
                    : std::max<idx_t>(
                              kSectionBytes / (kColumns * sizeof(Half) * width),
                              1);
    filtering.depth = (width + hopper::kTileWidth - 1) / hopper::kTileWidth;
    const int kept = hopper::kTileAlignment +
                     (S::kKept ? filtering.depth * S::kRowTileBytes : 0);
    filtering.stages =
            std::min(kMostStages, (dynamicBytes<S>() - kept) / S::kStageBytes);
    const int bytes = kept + filtering.stages * S::kStageBytes;
    const auto kernel = fusedFilterKernel<S>;
    if (error == cudaSuccess) {
        error = allowShared(kernel, bytes);
    }
    if (error != cudaSuccess) {
        return error;
    }
    kernel<<<
            blocksFor(filtering.queryTiles * filtering.tiles, 1, processors),
            kThreads,
            bytes,
            stream>>>(filtering, queryMap, vectorMap);
    return cudaGetLastError();
}

} // namespace

cudaError_t fusedFilterRuns(bool& runs) {
    int device = 0;
    int major = 0;
    int minor = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(
                &major, cudaDevAttrComputeCapabilityMajor, device);
    }
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(
                &minor, cudaDevAttrComputeCapabilityMinor, device);
    }
    runs = error == cudaSuccess && major == 9 && minor == 0 && encodeTiled();
    return error;
}

cudaError_t launchFusedFilter(
        FilterPass pass,
        const VectorRows& rows,
        const IndexState& state,
        const QueryState& queries,
        const Half* copies,
        idx_t stride,
        cudaStream_t stream) {
    if (queries.n == 0 || rows.count == 0) {
        return cudaSuccess;
    }
    const auto by = [&](auto shape) {
        return launch<decltype(shape)>(
                pass, rows, state, queries, copies, stride, stream);
    };
    const int width = copyWidth(queries.d);
    if (width <= 64) {
        return by(Shape<2, 4>());
    }
    if (width <= 96) {
        return by(Shape<2, 6>());
    }
    if (width <= 128) {
        return by(Shape<2, 8>());
    }
    return by(Shape<1, 0>());
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext

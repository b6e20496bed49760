#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/compute/kernels/ExactRows.cuh>

namespace faiss_ext {
namespace gpu {
namespace exact {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
/// Enough to fill any GPU; each block goes on until all is done.
constexpr int64_t kMostBlocks = 2048;

/// What the kernels of a preparation tell each other; begins as zeros. Behind
/// it lie sums of the vectors, double [kParts or fewer, d].
struct Preparation {
    /// Rows by the bin of their largest component, as stored and less the
    /// centre.
    uint32_t stored[kExponentBins];
    uint32_t lessCentre[kExponentBins];
    /// Some component is no float16 number.
    uint32_t notFloat16;
    /// There is a centre.
    uint32_t centred;
    /// The last bin of rows that take part in the mean, and how many these are.
    int last;
    uint32_t rows;
    double centreNorm;
};

/// Of vectorTermsKernel.
constexpr int kRowsOfBlock = 128;

constexpr size_t kSumsOffset = (sizeof(Preparation) + 255) / 256 * 256;

/// The vectors are summed in so many parts: as many as keep a GPU busy and
/// these sums within a few MiB.
int partsOf(int d) {
    constexpr int kMostParts = 512;
    constexpr int kMostSums = 1 << 19;
    const int parts = kMostSums / d;
    return parts < 1 ? 1 : parts < kMostParts ? parts : kMostParts;
}

/// Rows by bin. Without a centre also whether any component is rounded as a
/// float16 number, and the bin of each row, which for the time being takes the
/// place of its terms. `Lanes` read a row.
template <int Lanes, bool centring>
__global__ void rowBinsKernel(
        const float* data,
        idx_t n,
        int d,
        IndexState state,
        Preparation* preparation) {
    if (centring && !preparation->centred) {
        return;
    }
    __shared__ uint32_t bins[kExponentBins];
    for (int bin = threadIdx.x; bin < kExponentBins; bin += kThreads) {
        bins[bin] = 0;
    }
    __syncthreads();
    constexpr int kRows = kThreads / Lanes;
    const int lane = threadIdx.x % Lanes;
    bool rounds = false;
    // All lanes of a warp go on together.
    for (idx_t base = idx_t(blockIdx.x) * kRows; base < n;
         base += idx_t(gridDim.x) * kRows) {
        const idx_t row = base + threadIdx.x / Lanes;
        int largest = 0;
        if (row < n) {
            const float* y = data + row * d;
            for (int i = lane; i < d; i += Lanes) {
                const float component = __ldg(y + i);
                const int bin = exponentBin(
                        centring ? subtract(component, state.centre[i])
                                 : component);
                largest = bin > largest ? bin : largest;
                if (!centring) {
                    rounds |= !(toFloat(toHalf(component)) == component);
                }
            }
        }
        for (int step = Lanes / 2; step > 0; step /= 2) {
            const int other = __shfl_xor_sync(kWholeWarp, largest, step);
            largest = other > largest ? other : largest;
        }
        if (row < n && lane == 0) {
            atomicAdd(&bins[largest], 1u);
            if (!centring) {
                state.vectors[row].error = static_cast<float>(largest);
            }
        }
    }
    if (rounds) {
        // Whoever else writes it writes the same.
        preparation->notFloat16 = 1;
    }
    __syncthreads();
    uint32_t* total = centring ? preparation->lessCentre : preparation->stored;
    for (int bin = threadIdx.x; bin < kExponentBins; bin += kThreads) {
        if (bins[bin]) {
            atomicAdd(&total[bin], bins[bin]);
        }
    }
}

/// Which rows take part in the mean. One block of kExponentBins threads.
__global__ void chooseRowsKernel(Preparation* preparation) {
    __shared__ uint32_t bins[kExponentBins];
    bins[threadIdx.x] = preparation->stored[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        const int last = lastMeanBin(bins);
        uint32_t rows = 0;
        for (int bin = 0; bin < kExponentBins; ++bin) {
            rows += inMean(bin, last) ? bins[bin] : 0;
        }
        preparation->last = last;
        preparation->rows = rows;
    }
}

constexpr int kColumns = 32;
constexpr int kRowsAtOnce = 8;

/// The sum of each part of the rows: block (columns, part), threads (kColumns,
/// kRowsAtOnce). Always in the same order.
__global__ void sumPartsKernel(
        const float* data,
        idx_t n,
        int d,
        const VectorTerms* bins,
        const Preparation* preparation,
        double* sums) {
    if (!preparation->notFloat16) {
        return;
    }
    const int column = blockIdx.x * kColumns + threadIdx.x;
    const idx_t part = blockIdx.y;
    const idx_t parts = gridDim.y;
    const idx_t end = n * (part + 1) / parts;
    const int last = preparation->last;
    double sum = 0;
    if (column < d) {
#pragma unroll 4
        for (idx_t row = n * part / parts + threadIdx.y; row < end;
             row += kRowsAtOnce) {
            const float component = __ldg(data + row * d + column);
            if (inMean(static_cast<int>(bins[row].error), last)) {
                sum += double(component);
            }
        }
    }
    __shared__ double found[kRowsAtOnce][kColumns];
    found[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < d) {
        for (int y = 1; y < kRowsAtOnce; ++y) {
            sum += found[y][threadIdx.x];
        }
        sums[part * d + column] = sum;
    }
}

/// The mean: a warp a component.
__global__ void meanKernel(
        const double* sums,
        int parts,
        int d,
        const Preparation* preparation,
        float* centre) {
    const int column = blockIdx.x * kWarps + threadIdx.x / 32;
    if (!preparation->notFloat16 || column >= d) {
        return;
    }
    double sum = 0;
    for (int part = threadIdx.x % 32; part < parts; part += 32) {
        sum += sums[int64_t(part) * d + column];
    }
    for (int step = 16; step > 0; step /= 2) {
        sum += __shfl_xor_sync(kWholeWarp, sum, step);
    }
    if (threadIdx.x % 32 == 0) {
        centre[column] = static_cast<float>(sum / double(preparation->rows));
    }
}

/// Whether the mean becomes the centre; if not, that is zeros. One block.
__global__ void chooseCentreKernel(
        int d, Preparation* preparation, float* centre) {
    __shared__ double parts[kWarps];
    __shared__ bool centred;
    const bool rounds = preparation->notFloat16 && preparation->rows > 0;
    double squares = 0;
    if (rounds) {
        for (int i = threadIdx.x; i < d; i += kThreads) {
            squares += double(centre[i]) * double(centre[i]);
        }
    }
    for (int step = 16; step > 0; step /= 2) {
        squares += __shfl_xor_sync(kWholeWarp, squares, step);
    }
    if (threadIdx.x % 32 == 0) {
        parts[threadIdx.x / 32] = squares;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double all = 0;
        for (int warp = 0; warp < kWarps; ++warp) {
            all += parts[warp];
        }
        const double norm = centreNorm(all, d);
        // (False for NaN.)
        centred = rounds && norm <= 0x1p62;
        preparation->centred = centred;
        preparation->centreNorm = norm;
    }
    __syncthreads();
    if (!centred) {
        for (int i = threadIdx.x; i < d; i += kThreads) {
            centre[i] = 0;
        }
    }
}

/// One block of kExponentBins threads.
__global__ void indexTermsKernel(
        Metric metric,
        TensorArithmetic arithmetic,
        int d,
        const Preparation* preparation,
        IndexTerms* terms) {
    __shared__ uint32_t bins[kExponentBins];
    const bool centred = preparation->centred;
    bins[threadIdx.x] = centred ? preparation->lessCentre[threadIdx.x]
                                : preparation->stored[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        *terms = indexTerms(
                metric,
                d,
                preparation->notFloat16 ? scaleOfRows(bins) : 0,
                centred,
                preparation->centreNorm,
                arithmetic);
    }
}

/// Terms of kRowsOfBlock vectors a block.
template <typename Stored, int Lanes>
__global__ void vectorTermsKernel(
        const Stored* data, idx_t n, int d, IndexState state) {
    constexpr int kRows = kThreads / Lanes;
    const int lane = threadIdx.x % Lanes;
    const bool centred = state.terms->centred;
    const float factor = powerOfTwo(state.terms->scale);
    const float inverse = powerOfTwo(-state.terms->scale);
    for (int base = 0; base < kRowsOfBlock; base += kRows) {
        const idx_t row =
                idx_t(blockIdx.x) * kRowsOfBlock + base + threadIdx.x / Lanes;
        RowSums sums;
        if (row < n) {
            const Stored* y = data + row * d;
            for (int i = lane; i < d; i += Lanes) {
                const float component = toFloat(y[i]);
                const float centre = state.centre[i];
                sums.addComponent(
                        component,
                        centre,
                        halfOf(component, centre, factor),
                        inverse);
            }
        }
        for (int step = Lanes / 2; step > 0; step /= 2) {
            RowSums other;
            other.square = __shfl_xor_sync(kWholeWarp, sums.square, step);
            other.error = __shfl_xor_sync(kWholeWarp, sums.error, step);
            other.outside =
                    __shfl_xor_sync(kWholeWarp, int(sums.outside), step) != 0;
            sums.addPart(other);
        }
        if (row < n && lane == 0) {
            state.vectors[row] = vectorTerms(sums, d, centred);
        }
    }
}

/// A thread writes eight components.
template <typename Stored, bool aligned>
__global__ void copyVectorsKernel(
        const Stored* data,
        int d,
        VectorRows rows,
        IndexState state,
        const uint32_t* neededBy,
        uint4* copies) {
    if (neededBy && *neededBy == 0) {
        return;
    }
    const int groups = copyWidth(d) / 8;
    const float factor = powerOfTwo(state.terms->scale);
    const int64_t end = rows.count * groups;
    const int64_t step = int64_t(gridDim.x) * kThreads;
    for (int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x; at < end;
         at += step) {
        // A division of 64 bits takes longer than the rest.
        const int64_t row = end <= 0xffffffff
                                    ? int64_t(uint32_t(at) / uint32_t(groups))
                                    : at / groups;
        const int first = static_cast<int>(at - row * groups) * 8;
        const Stored* y = data + (rows.first + row * rows.step) * d;
        uint32_t words[4];
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            const int i = first + 4 * part;
            const Four components = loadFour<aligned>(y, i, d);
            uint32_t halves[4];
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                halves[c] = i + c < d ? halfOf(components.at[c],
                                               __ldg(state.centre + i + c),
                                               factor)
                                                .bits
                                      : 0;
            }
            words[2 * part] = halves[0] | halves[1] << 16;
            words[2 * part + 1] = halves[2] | halves[3] << 16;
        }
        copies[at] = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

/// Lanes that read a row of d components.
bool fewComponents(int d) {
    return d <= 16;
}

/// Everything about the centre and the scale of float32 vectors.
cudaError_t launchCentre(
        const float* data,
        idx_t n,
        int d,
        const IndexState& state,
        Preparation* preparation,
        double* sums,
        cudaStream_t stream) {
    const int lanes = fewComponents(d) ? 4 : 32;
    const unsigned rowBlocks = blocksFor(n, kThreads / lanes, kMostBlocks);
    const auto bins = fewComponents(d) ? rowBinsKernel<4, false>
                                       : rowBinsKernel<32, false>;
    bins<<<rowBlocks, kThreads, 0, stream>>>(data, n, d, state, preparation);
    chooseRowsKernel<<<1, kExponentBins, 0, stream>>>(preparation);
    const int parts = partsOf(d);
    sumPartsKernel<<<
            dim3(blocksFor(d, kColumns), parts),
            dim3(kColumns, kRowsAtOnce),
            0,
            stream>>>(data, n, d, state.vectors, preparation, sums);
    meanKernel<<<blocksFor(d, kWarps), kThreads, 0, stream>>>(
            sums, parts, d, preparation, state.centre);
    chooseCentreKernel<<<1, kThreads, 0, stream>>>(
            d, preparation, state.centre);
    const auto centredBins =
            fewComponents(d) ? rowBinsKernel<4, true> : rowBinsKernel<32, true>;
    centredBins<<<rowBlocks, kThreads, 0, stream>>>(
            data, n, d, state, preparation);
    return cudaGetLastError();
}

} // namespace

size_t prepareBytes(int d) {
    return kSumsOffset + size_t(partsOf(d)) * d * sizeof(double);
}

cudaError_t launchPrepareVectors(
        Metric metric,
        const TensorArithmetic& arithmetic,
        const VectorsView& vectors,
        const IndexState& state,
        void* scratch,
        cudaStream_t stream) {
    Preparation* preparation = static_cast<Preparation*>(scratch);
    double* sums = reinterpret_cast<double*>(
            static_cast<char*>(scratch) + kSumsOffset);
    const idx_t n = vectors.n;
    const int d = vectors.d;
    cudaError_t error =
            cudaMemsetAsync(preparation, 0, sizeof(Preparation), stream);
    if (error != cudaSuccess) {
        return error;
    }
    if (vectors.float16) {
        chooseCentreKernel<<<1, kThreads, 0, stream>>>(
                d, preparation, state.centre);
    } else {
        error = launchCentre(
                static_cast<const float*>(vectors.data),
                n,
                d,
                state,
                preparation,
                sums,
                stream);
        if (error != cudaSuccess) {
            return error;
        }
    }
    indexTermsKernel<<<1, kExponentBins, 0, stream>>>(
            metric, arithmetic, d, preparation, state.terms);
    return withStored(vectors, [&](const auto* data) {
        using Stored = std::decay_t<decltype(*data)>;
        const auto terms = fewComponents(d) ? vectorTermsKernel<Stored, 4>
                                            : vectorTermsKernel<Stored, 32>;
        terms<<<blocksFor(n, kRowsOfBlock), kThreads, 0, stream>>>(
                data, n, d, state);
        return cudaGetLastError();
    });
}

cudaError_t launchCopyVectors(
        const VectorsView& vectors,
        const VectorRows& rows,
        const IndexState& state,
        Half* copies,
        const uint32_t* neededBy,
        cudaStream_t stream) {
    const int d = vectors.d;
    const int64_t threads = rows.count * (copyWidth(d) / 8);
    if (threads == 0) {
        return cudaSuccess;
    }
    constexpr int64_t kMostCopyBlocks = 1 << 20;
    return withStored(vectors, [&](const auto* data) {
        using Stored = std::decay_t<decltype(*data)>;
        const auto copy = rowsAligned(data, d)
                                  ? copyVectorsKernel<Stored, true>
                                  : copyVectorsKernel<Stored, false>;
        copy<<<blocksFor(threads, kThreads, kMostCopyBlocks),
               kThreads,
               0,
               stream>>>(
                data,
                d,
                rows,
                state,
                neededBy,
                reinterpret_cast<uint4*>(copies));
        return cudaGetLastError();
    });
}

} // namespace exact
} // namespace gpu
} // namespace faiss_ext

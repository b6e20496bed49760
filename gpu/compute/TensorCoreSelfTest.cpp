#include <faiss_ext/gpu/compute/TensorCoreSelfTest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include <faiss_ext/gpu/compute/BlasStream.h>
#include <faiss_ext/gpu/compute/ScratchMemory.h>
#include <faiss_ext/gpu/compute/exact/SelfTest.h>
#include <faiss_ext/gpu/compute/kernels/ExactKernels.h>
#include <faiss_ext/gpu/cuda/CudaCheck.h>
#include <faiss_ext/gpu/cuda/CudaHandles.h>
#include <faiss_ext/gpu/host/PinnedBufferPool.h>
#include <faiss_ext/gpu/threads/Interrupts.h>

namespace faiss_ext {
namespace gpu {

namespace {

using exact::Half;

/// One product: queries [n, width] times every step-th of vectors
/// [count * step, width].
struct Product {
    idx_t n;
    idx_t count;
    int width;
    idx_t step = 1;
    /// Of selfTestComponent.
    bool crafted = false;

    idx_t rows() const {
        return n + count * step;
    }
};

// One and few queries, whole tiles of a product, long rows of few, whose
// products cuBLAS divides among blocks, and vectors with others in between.
constexpr Product kProducts[] = {
        {1, 128, 64},
        {16, 512, 128},
        {128, 256, 128},
        {64, 256, 96},
        {8, 64, 1024},
        {4, 16, 8192},
        {32, 128, 24},
        {64, 256, 64, 3},
        {exact::kSelfTestRows,
         exact::kSelfTestRows,
         exact::kSelfTestDimensions,
         1,
         true},
};

/// Small numbers without a pattern.
class Noise {
   public:
    uint32_t next() {
        // A linear congruential generator modulo 2^32; its high bits.
        state_ = state_ * 1664525u + 1013904223u;
        return state_ >> 8;
    }

    /// From -1 to 1.
    float unit() {
        return static_cast<float>(next() % 4001) / 2000.0f - 1.0f;
    }

   private:
    uint32_t state_ = 17;
};

constexpr int kKinds = 6;

/// A row whose products with others are hard to add. The kinds of a query and
/// of a vector meet in all pairs.
void fillRow(int kind, Noise& noise, Half* row, int width) {
    for (int i = 0; i < width; ++i) {
        float value = noise.unit();
        switch (kind) {
            case 0: // plain
                break;
            case 1: // one large number, and all else far below it
                value = i == 0 ? 2048.0f : 0.001f * std::fabs(value);
                break;
            case 2: // large numbers that cancel, in each group
                value = (i % 2 ? -512.0f : 512.0f) + value;
                break;
            case 3: // the same, a group and more apart
                value = i == 3 ? 4096.0f : i == width - 2 ? -4096.0f : value;
                break;
            case 4: // nothing but the least bits of each, all of one sign
                value = 1.0f + 0x1p-10f;
                break;
            case 5: // growing by and by
                value = std::ldexp(1.0f, i * 24 / width - 12) *
                        (1.0f + 0.5f * value);
                break;
        }
        row[i] = exact::toHalf(value);
    }
}

/// The rows of all cases, one behind the other, and the scores likewise.
class Rows {
   public:
    Rows() {
        for (const Product& product : kProducts) {
            halves_ += product.rows() * product.width;
            scores_ += product.n * product.count;
        }
    }

    size_t halfBytes() const {
        return roundUp(halves_ * sizeof(Half), ScratchMemory::kAlignment);
    }
    size_t scoreBytes() const {
        return scores_ * sizeof(float);
    }

    void fill(Half* rows) const {
        Noise noise;
        for (const Product& product : kProducts) {
            for (idx_t i = 0; i < product.rows(); ++i) {
                if (product.crafted) {
                    const int side = i < product.n ? 0 : 1;
                    for (int j = 0; j < product.width; ++j) {
                        rows[j] = exact::selfTestComponent(
                                side, static_cast<int>(i % product.n), j);
                    }
                    rows += product.width;
                    continue;
                }
                // Queries and vectors of all kinds, in different rhythms.
                const idx_t kind = i < product.n ? i : (i - product.n) / 3;
                fillRow(static_cast<int>((kind + product.width / 8) % kKinds),
                        noise,
                        rows,
                        product.width);
                rows += product.width;
            }
        }
    }

    template <typename Enqueue>
    void forEach(const Half* rows, float* scores, const Enqueue& use) const {
        for (const Product& product : kProducts) {
            const Half* const vectors = rows + product.n * product.width;
            use(product, rows, vectors, scores);
            rows += product.rows() * product.width;
            scores += product.n * product.count;
        }
    }

   private:
    size_t halves_ = 0;
    size_t scores_ = 0;
};

/// Rows [rows, width] as numbers, and their norms.
struct Numbers {
    std::vector<float> values;
    std::vector<double> norms;

    Numbers(const Half* halves, idx_t rows, int width)
            : values(rows * width), norms(rows) {
        std::transform(
                halves, halves + values.size(), values.begin(), [](Half half) {
                    return exact::toFloat(half);
                });
        for (idx_t i = 0; i < rows; ++i) {
            const float* const row = values.data() + i * width;
            norms[i] = std::sqrt(product(row, row, width));
        }
    }

    /// Without an error worth mentioning: products are exact in double.
    static double product(const float* x, const float* y, int width) {
        double sum = 0;
        for (int i = 0; i < width; ++i) {
            sum += double(x[i]) * double(y[i]);
        }
        return sum;
    }
};

bool withinBound(
        const Product& product,
        const Half* queries,
        const Half* vectors,
        const float* scores,
        const exact::TensorArithmetic& arithmetic) {
    const double bound = exact::accumulationError(arithmetic, product.width);
    const Numbers xs(queries, product.n, product.width);
    const Numbers ys(vectors, product.count * product.step, product.width);
    for (idx_t i = 0; i < product.n; ++i) {
        for (idx_t j = 0; j < product.count; ++j) {
            const double right = Numbers::product(
                    xs.values.data() + i * product.width,
                    ys.values.data() + j * product.step * product.width,
                    product.width);
            const double found = scores[i * product.count + j];
            // Written so that NaN fails.
            if (!(std::fabs(found - right) <=
                  bound * xs.norms[i] * ys.norms[j * product.step])) {
                return false;
            }
        }
    }
    return true;
}

/// Whether there is no use in trying again.
bool cannotBeMade(cublasStatus_t status) {
    return status == CUBLAS_STATUS_NOT_SUPPORTED ||
           status == CUBLAS_STATUS_ARCH_MISMATCH ||
           status == CUBLAS_STATUS_INVALID_VALUE;
}

/// Nothing where cuBLAS has failed, for now.
std::optional<bool> tryTensorCores(
        faiss::gpu::GpuResources& resources,
        int device,
        exact::TensorArithmetic arithmetic,
        TransferCounters& counters) {
    const cudaStream_t stream = resources.getDefaultStream(device);
    Event done;
    // What the stream holds may take long, the test does not.
    done.record(stream);
    ++counters.hostWaits;
    waitUnlessInterrupted(done);
    const Rows rows;
    const ScratchMemory scratch(
            resources, device, rows.halfBytes() + rows.scoreBytes(), counters);
    PinnedBufferPool pool(
            PinnedBufferPool::bucketSize(rows.halfBytes()) +
                    PinnedBufferPool::bucketSize(rows.scoreBytes()),
            counters);
    const PinnedBuffer given = pool.acquire(rows.halfBytes());
    const PinnedBuffer found = pool.acquire(rows.scoreBytes());
    auto* const halves = reinterpret_cast<Half*>(given.data());
    auto* const scores = reinterpret_cast<float*>(found.data());
    rows.fill(halves);
    cublasStatus_t failed = CUBLAS_STATUS_SUCCESS;
    struct EndWork {
        cudaStream_t stream;
        int device;
        bool armed = true;
        ~EndWork() {
            // ~ScratchMemory clears the error.
            if (armed && cudaStreamSynchronize(stream) != cudaSuccess) {
                waitForDevice(device);
            }
        }
    };
    {
        // Before the pinned memory goes, if something fails.
        EndWork onFailure{stream, device};
        FAISS_EXT_CUDA_TRY(cudaMemcpyAsync(
                scratch.data(),
                halves,
                rows.halfBytes(),
                cudaMemcpyHostToDevice,
                stream));
        const cublasHandle_t blas = blasOn(resources, device, stream);
        auto* const products =
                reinterpret_cast<float*>(scratch.data() + rows.halfBytes());
        rows.forEach(
                reinterpret_cast<const Half*>(scratch.data()),
                products,
                [&](const Product& product,
                    const Half* queries,
                    const Half* vectors,
                    float* scoresOfIt) {
                    const cublasStatus_t status = exact::launchScores(
                            blas,
                            queries,
                            product.n,
                            vectors,
                            product.step * product.width,
                            product.count,
                            product.width,
                            scoresOfIt,
                            product.count);
                    if (status != CUBLAS_STATUS_SUCCESS) {
                        if (status == CUBLAS_STATUS_ALLOC_FAILED) {
                            checkBlas(status, "scores", stream);
                        }
                        // A lost context shows below.
                        failed = status;
                    }
                });
        FAISS_EXT_CUDA_TRY(cudaMemcpyAsync(
                scores,
                products,
                rows.scoreBytes(),
                cudaMemcpyDeviceToHost,
                stream));
        ++counters.hostWaits;
        done.record(stream);
        done.wait();
        onFailure.armed = false;
    }
    if (failed != CUBLAS_STATUS_SUCCESS) {
        // Faiss' next check would abort the process over it.
        cudaGetLastError();
        return cannotBeMade(failed) ? std::optional<bool>(false) : std::nullopt;
    }
    arithmetic.factor = 1;
    bool right = true;
    rows.forEach(
            halves,
            scores,
            [&](const Product& product,
                const Half* queries,
                const Half* vectors,
                const float* found) {
                right = right &&
                        withinBound(
                                product, queries, vectors, found, arithmetic);
            });
    return right;
}

struct Results {
    std::mutex mutex;
    std::map<int, std::optional<bool>> passedOn;
};

Results& results() {
    static auto& all = *new Results;
    return all;
}

} // namespace

std::optional<bool> tensorCoresPass(
        faiss::gpu::GpuResources& resources,
        int device,
        const exact::TensorArithmetic& arithmetic,
        TransferCounters& counters) {
    {
        const std::lock_guard<std::mutex> lock(results().mutex);
        if (const auto known = results().passedOn[device]) {
            return known;
        }
    }
    // Without that lock: threads with other resources may try it as well.
    const std::optional<bool> right =
            tryTensorCores(resources, device, arithmetic, counters);
    const std::lock_guard<std::mutex> lock(results().mutex);
    results().passedOn[device] = right;
    return right;
}

void rememberSelfTest(int device, std::optional<bool> passed) {
    const std::lock_guard<std::mutex> lock(results().mutex);
    results().passedOn[device] = passed;
}

} // namespace gpu
} // namespace faiss_ext

#pragma once

#include <faiss_ext/gpu/call/CallRunner.h>
#include <faiss_ext/gpu/call/Tuning.h>
#include <faiss_ext/gpu/index/StagedConfig.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace test {

using faiss_ext::gpu::CallRunner;
using faiss_ext::gpu::ComputeNeeds;

/// Every size of a call by its name: those that users set, and those that the
/// library keeps to itself.
struct TunedConfig : faiss_ext::gpu::Tuning {
    size_t pinnedBytes = 0;
    int computeLanes = 0;
    int64_t batchedQueries = 0;
    int copyThreads = 0;
    std::string search;

    operator faiss_ext::gpu::StagedConfig() const {
        return {pinnedBytes,
                computeLanes,
                batchedQueries,
                copyThreads,
                search,
                std::make_shared<const faiss_ext::gpu::Tuning>(*this)};
    }

    faiss_ext::gpu::CallConfig complete() const {
        return faiss_ext::gpu::complete(*this);
    }
};

/// What Work, a function of (context, first row, rows, inputs, outputs),
/// enqueues.
template <typename Work>
class RowWork : public faiss_ext::gpu::Computation {
   public:
    RowWork(const Work& work, const ComputeNeeds& needs)
            : work_(work), needs_(needs) {}

    ComputeNeeds needs(faiss_ext::gpu::idx_t) const override {
        return needs_;
    }

    void enqueue(
            const faiss_ext::gpu::ComputeContext& context,
            const faiss_ext::gpu::ComputeRows& rows) override {
        work_(context, rows.first, rows.count, rows.inputs, rows.outputs);
    }

   private:
    const Work& work_;
    const ComputeNeeds needs_;
};

template <typename Work>
void runRows(
        CallRunner& runner,
        int64_t n,
        const std::vector<faiss_ext::gpu::InputRows>& inputs,
        const std::vector<faiss_ext::gpu::OutputRows>& outputs,
        const Work& work,
        const ComputeNeeds& needs = {}) {
    RowWork<Work> computation(work, needs);
    runner.run(n, inputs, outputs, computation);
}

/// A search whose labels and distances lie in one block.
template <typename Index>
void searchPacked(
        const Index& index, int64_t n, const float* x, int64_t k, void* block) {
    auto* labels = static_cast<int64_t*>(block);
    index.search(n, x, k, reinterpret_cast<float*>(labels + n * k), labels);
}

} // namespace test

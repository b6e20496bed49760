// A tool that NVTX loads ($NVTX_INJECTION64_PATH), as it loads Nsight Systems:
// writes down the ranges of each thread for nvtx_test.

#include <nvtx3/nvToolsExt.h>

#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Domain {
    std::string name;
};

struct Thread {
    std::vector<std::string> lines;
    size_t depth = 0;
};

std::mutex mutex;
std::map<std::thread::id, Thread> threads;

nvtxDomainHandle_t NVTX_API createDomain(const char* name) {
    return reinterpret_cast<nvtxDomainHandle_t>(new Domain{name});
}

int NVTX_API
push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* range) {
    std::lock_guard<std::mutex> guard(mutex);
    Thread& thread = threads[std::this_thread::get_id()];
    std::string line(2 * thread.depth, ' ');
    if (thread.depth == 0) {
        line += reinterpret_cast<const Domain*>(domain)->name + ": ";
    }
    line += range->message.ascii;
    if (range->payloadType == NVTX_PAYLOAD_TYPE_INT64) {
        line += " " + std::to_string(range->payload.llValue);
    }
    thread.lines.push_back(line);
    return static_cast<int>(thread.depth++);
}

int NVTX_API pop(nvtxDomainHandle_t) {
    std::lock_guard<std::mutex> guard(mutex);
    return static_cast<int>(--threads[std::this_thread::get_id()].depth);
}

template <typename Function>
void set(NvtxFunctionTable table, int id, Function* function) {
    *table[id] = reinterpret_cast<NvtxFunctionPointer>(function);
}

} // namespace

extern "C" {

__attribute__((visibility("default"))) int InitializeInjectionNvtx2(
        NvtxGetExportTableFunc_t exportTable) {
    const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(
            exportTable(NVTX_ETID_CALLBACKS));
    NvtxFunctionTable table = nullptr;
    unsigned int size = 0;
    if (!callbacks || !callbacks->GetModuleFunctionTable(
                              NVTX_CB_MODULE_CORE2, &table, &size)) {
        return 0;
    }
    set(table, NVTX_CBID_CORE2_DomainCreateA, createDomain);
    set(table, NVTX_CBID_CORE2_DomainRangePushEx, push);
    set(table, NVTX_CBID_CORE2_DomainRangePop, pop);
    return 1;
}

/// What has been written down since the last call, of the calling thread or of
/// all others. A range still open shows by its depth in what follows.
__attribute__((visibility("default"))) void nvtx_tool_take(
        bool ofThisThread, std::vector<std::string>* lines) {
    std::lock_guard<std::mutex> guard(mutex);
    for (auto& [id, thread] : threads) {
        if ((id == std::this_thread::get_id()) == ofThisThread) {
            lines->insert(
                    lines->end(), thread.lines.begin(), thread.lines.end());
            thread.lines.clear();
        }
    }
}

} // extern "C"

#include <faiss_ext/gpu/cuda/NvtxRange.h>

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define FAISS_EXT_HAS_NVTX 1
#else
#define FAISS_EXT_HAS_NVTX 0
#endif

namespace faiss_ext {
namespace gpu {

#if FAISS_EXT_HAS_NVTX

namespace {

// Never destroyed: a range may be opened by the destructor of a static object.
nvtxDomainHandle_t domain() noexcept {
    static const nvtxDomainHandle_t made = nvtxDomainCreateA("faiss_ext");
    return made;
}

} // namespace

NvtxRange::NvtxRange(const char* name, int64_t number) noexcept {
    nvtxEventAttributes_t range = {};
    range.version = NVTX_VERSION;
    range.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    range.messageType = NVTX_MESSAGE_TYPE_ASCII;
    range.message.ascii = name;
    if (number >= 0) {
        range.payloadType = NVTX_PAYLOAD_TYPE_INT64;
        range.payload.llValue = number;
    }
    nvtxDomainRangePushEx(domain(), &range);
}

NvtxRange::~NvtxRange() {
    nvtxDomainRangePop(domain());
}

#else

NvtxRange::NvtxRange(const char*, int64_t) noexcept {}
NvtxRange::~NvtxRange() = default;

#endif

} // namespace gpu
} // namespace faiss_ext

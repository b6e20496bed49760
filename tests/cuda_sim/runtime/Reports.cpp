// The words of reports: who called, what memory it was.

#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "Simulator.h"

namespace cuda_sim {

std::string hex(const void* ptr) {
    char text[32];
    snprintf(text, sizeof(text), "%p", ptr);
    return text;
}

static const char* baseName(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

std::string describeCaller(const void* caller) {
    Dl_info info;
    // The address after a call may already belong to the next symbol.
    auto* inside = static_cast<const char*>(caller) - 1;
    if (!caller || !dladdr(inside, &info) || !info.dli_fname) {
        return "an unknown caller";
    }
    std::string symbol = hex(caller);
    if (info.dli_sname) {
        int status = -1;
        char* readable =
                abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
        symbol = status == 0 ? readable : info.dli_sname;
        free(readable);
    } else {
        auto offset = inside - static_cast<const char*>(info.dli_fbase);
        char text[32];
        snprintf(text, sizeof(text), "offset 0x%zx", size_t(offset));
        symbol = text;
    }
    return symbol + " (" + baseName(info.dli_fname) + ")";
}

const std::string& moduleOf(const void* caller) {
    // Never destroyed: calls come from destructors at the end of the process.
    static auto& known = *new std::unordered_map<const void*, std::string>;
    auto it = known.find(caller);
    if (it == known.end()) {
        Dl_info info;
        bool found = dladdr(static_cast<const char*>(caller) - 1, &info) &&
                     info.dli_fname;
        it = known.emplace(caller, found ? baseName(info.dli_fname) : "").first;
    }
    return it->second;
}

bool calledByFaiss(const void* caller) {
    // libfaiss.so, libfaiss_avx2.so and the like; no plug-in's.
    auto& module = moduleOf(caller);
    for (const char* prefix : {"libfaiss.so", "libfaiss_avx", "libfaiss_sve"}) {
        if (module.compare(0, strlen(prefix), prefix) == 0) {
            return true;
        }
    }
    return false;
}

std::string describe(const Origin& origin) {
    return origin.what + " on " + origin.where + ", call " +
           std::to_string(origin.sequence) + " from " +
           describeCaller(origin.caller);
}

std::string describe(const Allocation& allocation) {
    return "the allocation of " + std::to_string(allocation.bytes) +
           " bytes of " + toString(allocation.kind) + " at " +
           hex(reinterpret_cast<const void*>(allocation.begin)) +
           " (made by call " + std::to_string(allocation.sequence) + " from " +
           describeCaller(allocation.caller) +
           (allocation.freedBy.empty()
                    ? ")"
                    : "; freed by " + allocation.freedBy + ")");
}

void Simulator::report(int kind, const std::string& text) {
    reports.push_back({kind, text});
    ++count(Counter::reports);
    if (settings.verbose) {
        fprintf(stderr, "cuda_sim: %s\n", text.c_str());
    }
}

} // namespace cuda_sim

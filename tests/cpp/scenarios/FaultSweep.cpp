#include "FaultSweep.h"

#include <faiss/impl/FaissException.h>
#include <faiss_ext/gpu/cuda/Exceptions.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "Child.h"

namespace scenarios {

namespace {

constexpr const char* kOurs = "libfaiss_ext/*";
constexpr const char* kKinds[] = {"none", "call", "device", "operation"};
// How a child process ended that found nothing wrong.
constexpr int kRight = 0;
constexpr int kWrong = 1;
constexpr int kNoFault = 3;

// Faiss aborted over an operation of its own; nobody can prevent that.
constexpr int kFaissAborted = 4;

uint64_t injected = 0;
uint64_t faissAborts = 0;
uint64_t fatalOperation = 0;
// The device is lost, and Faiss takes memory from a pool: in the midst of its
// work it makes calls of ours, and it waits for less of what was there before.
bool lostOnPool = false;

void exitIfFaissAborts(int signal) {
    if (FaissAtWork::firstOperation() &&
        (lostOnPool ||
         (fatalOperation && fatalOperation >= FaissAtWork::firstOperation()))) {
        _exit(kFaissAborted);
    }
    ::signal(signal, SIG_DFL);
    raise(signal);
}

bool sticky(const Fault& fault) {
    return fault.kind == Fault::Device || fault.kind == Fault::Operation;
}

void arm(const Fault& fault) {
    switch (fault.kind) {
        case Fault::Call:
            cuda_sim_fail_call(kOurs, fault.nth, fault.error);
            break;
        case Fault::Device:
            cuda_sim_poison_device_at_call(kOurs, fault.nth, fault.error);
            break;
        case Fault::Operation:
            fatalOperation =
                    cuda_sim_counter("operations_executed") + fault.nth;
            cuda_sim_fail_operation(fault.nth, fault.error);
            break;
        default:
            break;
    }
}

bool deviceLost() {
    const bool lost =
            cudaStreamQuery(cudaStreamPerThread) == cudaErrorIllegalAddress;
    cudaGetLastError();
    return lost;
}

/// Whether the exception in flight is one that a caller may see for this fault.
std::string judgeException(const Fault& fault) {
    try {
        throw;
    } catch (const Mismatch& e) {
        return e.what();
    } catch (const OwnCallFailed& e) {
        // The scenario's own calls fail only when the device is lost.
        return sticky(fault) ? "" : std::string("own call: ") + e.what();
    } catch (const faiss_ext::gpu::CudaError& e) {
        if (e.code() != fault.error) {
            return std::string("another error: ") + e.what();
        }
        return "";
    } catch (const faiss::FaissException& e) {
        // From Faiss' allocators, which have their own words.
        return "";
    } catch (const std::exception& e) {
        return std::string("neither CudaError nor FaissException: ") + e.what();
    }
}

/// A lost device does nothing any more: what was enqueued cannot race.
std::string reports(bool lost) {
    std::string text;
    for (size_t i = 0; i < cuda_sim_check(); ++i) {
        const int kind = cuda_sim_report_kind_of(i);
        if (lost && (kind == CUDA_SIM_REPORT_RACE ||
                     kind == CUDA_SIM_REPORT_FREE_IN_USE)) {
            continue;
        }
        text += std::string("\n  ") + cuda_sim_report(i);
    }
    return text.empty() ? text : "the simulator reports:" + text;
}

/// A lost device: whatever is asked now says so, and everything can be
/// destroyed.
std::string afterLoss(Run& run) {
    for (int again = 0; again < 2; ++again) {
        try {
            run.answersAfterFault();
        } catch (const faiss_ext::gpu::CudaError&) {
            continue;
        } catch (const OwnCallFailed&) {
            continue;
        } catch (const std::exception& e) {
            return std::string("after the loss of the device: ") + e.what();
        }
    }
    run.tearDownAfterLoss();
    return "";
}

/// A failed call to free leaves what it was to free, and a failed call to go
/// back to another device leaves that as it was.
void allowForFailedCleanUp() {
    const std::string name = cuda_sim_last_fault();
    if (name.find("Destroy") == std::string::npos &&
        name.find("Free") == std::string::npos) {
        return;
    }
    for (size_t i = 0; i < cuda_sim_check(); ++i) {
        if (cuda_sim_report_kind_of(i) != CUDA_SIM_REPORT_LEAK) {
            return;
        }
    }
    cuda_sim_clear_reports();
}

std::string afterRecovery(Run& run) {
    cuda_sim_clear_faults();
    cudaSetDevice(0);
    try {
        run.answersAfterFault();
        run.settle();
        run.tearDown();
        cuda_sim_report_leaks();
        allowForFailedCleanUp();
        require(run.poolIsWhole(), "the pool did not get back what it lent");
        require(cuda_sim_pending() == 0, "work is left on the GPU");
    } catch (const std::exception& e) {
        return std::string("after the fault: ") + e.what();
    }
    return "";
}

} // namespace

Fault Fault::parse(const std::string& text) {
    Fault fault;
    char kind[16] = "";
    unsigned long long nth = 0;
    require(sscanf(text.c_str(), "%15[^:]:%llu:%d", kind, &nth, &fault.error) ==
                    3,
            "a fault looks like call:12:2");
    for (int i = 0; i < 4; ++i) {
        if (strcmp(kind, kKinds[i]) == 0) {
            fault.kind = static_cast<Kind>(i);
        }
    }
    fault.nth = nth;
    return fault;
}

std::string Fault::text() const {
    return std::string(kKinds[kind]) + ":" + std::to_string(nth) + ":" +
           std::to_string(error);
}

uint64_t abortsOfFaiss() {
    return faissAborts;
}

uint64_t faultsInjected() {
    return injected;
}

std::string runWithFault(const Scenario& scenario, uint64_t seed, Fault fault) {
    Run run(seed);
    run.setFaulty();
    if (fault.kind == Fault::Operation) {
        // Without it Faiss frees memory in the midst of a search, waits there
        // for whatever is in flight, and aborts.
        run.setFaissTemporary(size_t(1) << 20);
    }
    run.whenReady([&] {
        arm(fault);
        lostOnPool = sticky(fault) && run.usesPool();
    });
    std::string problem;
    bool threw = false;
    try {
        scenario.body(run);
        run.settle();
    } catch (...) {
        threw = true;
        problem = judgeException(fault);
    }
    if (!problem.empty()) {
        if (sticky(fault)) {
            run.tearDownAfterLoss();
        }
        return problem;
    }
    if (sticky(fault)) {
        if (!deviceLost()) {
            // The destructors make calls, too.
            run.tearDownAfterLoss();
            return deviceLost() ? reports(true) : "no fault";
        }
        problem = afterLoss(run);
    } else {
        const bool happened = *cuda_sim_last_fault();
        if (!happened && threw) {
            return "an exception without a fault";
        }
        problem = afterRecovery(run);
        if (problem.empty() && !happened) {
            return "no fault";
        }
    }
    return problem.empty() ? reports(sticky(fault)) : problem;
}

std::string sweepFaults(const Scenario& scenario, const std::string& program) {
    // It has faults of its own.
    if (strstr(scenario.name, "cannot_be_waited_for")) {
        return "";
    }
    std::string problems;
    int wrong = 0;
    for (const Fault& kind :
         {Fault{Fault::Call, 0, cudaErrorMemoryAllocation},
          Fault{Fault::Call, 0, cudaErrorInvalidValue},
          Fault{Fault::Device, 0, cudaErrorIllegalAddress},
          Fault{Fault::Operation, 0, cudaErrorIllegalAddress}}) {
        // The simulator fails what frees memory of one device when another is
        // lost, and an index on a sound device cannot know of the other. Nor
        // does it know of what is in flight through other resources, which
        // Faiss meets when it waits for the whole device.
        if (sticky(kind) && (strstr(scenario.name, "two_gpus") ||
                             strstr(scenario.name, "two_resources"))) {
            continue;
        }
        Fault fault = kind;
        for (fault.nth = 1;; ++fault.nth) {
            const Ended child = inChild(30, [&](std::string& text) {
                signal(SIGALRM, SIG_DFL);
                signal(SIGABRT, exitIfFaissAborts);
                text = runWithFault(scenario, 1 + fault.nth, fault);
                return text.empty()         ? kRight
                       : text == "no fault" ? kNoFault
                                            : kWrong;
            });
            if (child.status == kNoFault) {
                break;
            }
            ++injected;
            faissAborts += child.status == kFaissAborted;
            if (child.status == kRight || child.status == kFaissAborted) {
                continue;
            }
            problems += child.text + "\nreplay: " + program +
                        " --scenario=" + scenario.name +
                        " --seed=" + std::to_string(1 + fault.nth) +
                        " --fault=" + fault.text() + "\n";
            if (++wrong == 5) {
                return problems + "and maybe more\n";
            }
        }
    }
    return problems;
}

} // namespace scenarios

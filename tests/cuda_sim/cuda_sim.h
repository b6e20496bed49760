// Control of the simulated CUDA runtime: what a test, in C++ or in Python
// through ctypes, may ask of it. All functions are exported by the simulated
// libcudart, are thread-safe and may be called at any time.

#ifndef CUDA_SIM_H
#define CUDA_SIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

//
// Life
//

/// Runs what is pending, releases every hold, and forgets reports, counters,
/// faults, access history and sticky errors. Settings go back to those of the
/// environment. Objects that live (streams, events, memory) stay valid; from
/// then on they are not counted as leaks.
void cuda_sim_reset(void);

/// Number of devices, 1 to 8. Objects of a device taken away stay as they are.
void cuda_sim_set_device_count(int count);

/// Bytes that a device can give out; an allocation beyond fails with
/// cudaErrorMemoryAllocation.
void cuda_sim_set_device_memory(size_t bytes);

//
// Schedule
//

enum cuda_sim_policy {
    /// In the order of the calls.
    CUDA_SIM_IN_ORDER = 0,
    /// The newest operation that its dependencies allow.
    CUDA_SIM_REVERSE = 1,
    /// One stream runs only when nothing else can.
    CUDA_SIM_STARVE = 2,
    /// Nothing but what the waiting call needs (the default).
    CUDA_SIM_AS_LATE_AS_POSSIBLE = 3,
    /// At random, by stream priorities that change at random points.
    CUDA_SIM_RANDOM = 4
};

void cuda_sim_set_policy(int policy);
void cuda_sim_set_seed(uint64_t seed);
/// The stream that CUDA_SIM_STARVE starves.
void cuda_sim_starve_stream(void* stream);

/// Keeps a stream from executing anything until it is released.
void cuda_sim_hold_stream(void* stream);
void cuda_sim_release_stream(void* stream);
void cuda_sim_release_all(void);
/// How long a host wait that only a release could satisfy waits for another
/// thread to release. After that it is reported, and the call returns
/// cudaErrorLaunchTimeout. 0: at once. Default 5000.
void cuda_sim_set_hold_timeout_ms(int milliseconds);

/// Executes up to max_steps steps that are runnable; returns how many there
/// were. A copy takes several steps.
size_t cuda_sim_run(size_t max_steps);
/// Operations enqueued and not yet executed, on all streams or on one.
size_t cuda_sim_pending(void);
size_t cuda_sim_pending_on(void* stream);
/// A device makes progress while no host call waits. With a period above 0, a
/// thread executes one step each so many microseconds; needed where the host
/// waits for a host function's effect without a CUDA call. 0 (default): none.
void cuda_sim_set_background_us(int period);

//
// Legal behaviours that programs must bear
//

/// Pageable host to device, "async": 0 (default), the source is read during
/// the call, which then returns; 1, the call blocks until the copy is done.
void cuda_sim_set_pageable_h2d(int blocking);
/// Device to pageable host, "async": 0 (default), the call blocks until the
/// copy is done; 1, it returns early and the bytes land later.
void cuda_sim_set_pageable_d2h(int early);
/// How many pieces a copy is cut into; each is one step. Default 4.
void cuda_sim_set_copy_pieces(int pieces);
/// 0 (default): cudaFree with work pending is reported, except when libfaiss
/// itself calls it, which relies on the synchronisation in it; 1: never
/// reported, always synchronises; 2: reported whoever calls. In all of them
/// libfaiss_ext may free memory that nobody has used, for the wait alone.
void cuda_sim_set_free_policy(int policy);
/// 0 (default): what one host thread knows to be complete, all know, since
/// the runtime cannot see how threads synchronise. 1: each thread has its own
/// clock, and only cuda_sim_thread_release/acquire order threads.
void cuda_sim_set_separate_threads(int separate);
void cuda_sim_thread_release(const void* token);
void cuda_sim_thread_acquire(const void* token);

//
// Faults
//

/// The nth call (from 1, counted from now) of a runtime function, e.g.
/// "cudaMalloc", or of any function ("*"), fails with this error code, once.
/// "kernel:<name>" names the launch of a modelled kernel. "<library>/" before
/// the name means calls made by a library or program whose file name begins
/// so: "libfaiss_ext/cudaMalloc".
void cuda_sim_fail_call(const char* function, uint64_t nth, int error);
/// The nth operation executed from now on does not happen: the device is
/// poisoned with this error, which surfaces at later calls.
void cuda_sim_fail_operation(uint64_t nth, int error);
/// As above, but from the nth call of a function on.
void cuda_sim_poison_device_at_call(
        const char* function, uint64_t nth, int error);
/// The function whose call failed by the fault that happened last since the
/// reset, or "". A sweep raises nth until there was none.
const char* cuda_sim_last_fault(void);
/// Forgets the faults that have not happened yet.
void cuda_sim_clear_faults(void);

//
// Statistics. Names are those of CUDA_SIM_COUNTERS below.
//

// clang-format off
#define CUDA_SIM_COUNTERS(X)                                              \
    X(copies_h2d_pageable) X(copies_h2d_pinned)                           \
    X(copies_d2h_pageable) X(copies_d2h_pinned)                           \
    X(copies_d2d) X(copies_p2p) X(copies_h2h)                             \
    X(bytes_h2d_pageable) X(bytes_h2d_pinned)                             \
    X(bytes_d2h_pageable) X(bytes_d2h_pinned)                             \
    X(bytes_d2d) X(bytes_p2p) X(bytes_h2h)                                \
    X(waits_event) X(waits_stream) X(waits_device)                        \
    X(waits_memcpy) X(waits_pageable) X(waits_free)                       \
    X(queries)                                                            \
    X(allocs_device) X(allocs_pinned) X(allocs_managed) X(allocs_async)   \
    X(frees_device) X(frees_pinned) X(frees_async)                        \
    X(bytes_allocated_device) X(bytes_allocated_pinned)                   \
    X(peak_device_bytes)                                                  \
    X(registrations) X(unregistrations)                                   \
    X(kernels) X(host_functions) X(memsets) X(bytes_memset)               \
    X(event_records) X(event_waits)                                       \
    X(streams_created) X(events_created)                                  \
    X(operations_executed) X(steps)                                       \
    X(live_streams) X(live_events) X(live_device) X(live_pinned)          \
    X(live_device_bytes) X(live_pinned_bytes) X(live_registrations)       \
    X(reports)
// clang-format on

struct cuda_sim_stats {
#define CUDA_SIM_FIELD(name) uint64_t name;
    CUDA_SIM_COUNTERS(CUDA_SIM_FIELD)
#undef CUDA_SIM_FIELD
};

void cuda_sim_get_stats(struct cuda_sim_stats* stats);
/// One counter by its name; UINT64_MAX where there is none of that name.
uint64_t cuda_sim_counter(const char* name);
/// Sets counters and call counts to 0, and nothing else.
void cuda_sim_reset_counters(void);
/// Calls of a runtime function, or launches of "kernel:<name>", or of all
/// ("*"), since reset.
uint64_t cuda_sim_calls(const char* function);

//
// Reports
//

enum cuda_sim_report_kind {
    CUDA_SIM_REPORT_RACE = 1,
    CUDA_SIM_REPORT_LEAK = 2,
    CUDA_SIM_REPORT_USE_AFTER_FREE = 3,
    CUDA_SIM_REPORT_BAD_FREE = 4,
    CUDA_SIM_REPORT_OUT_OF_BOUNDS = 5,
    CUDA_SIM_REPORT_FREE_IN_USE = 6,
    CUDA_SIM_REPORT_BAD_HANDLE = 7,
    CUDA_SIM_REPORT_UNMODELLED = 8,
    CUDA_SIM_REPORT_STUCK_WAIT = 9,
    CUDA_SIM_REPORT_CALL_IN_HOST_FUNCTION = 10,
    CUDA_SIM_REPORT_BAD_ARGUMENT = 11,
    CUDA_SIM_REPORT_CALL_AFTER_FORK = 12
};

/// Number of reports so far; 0 is what a test wants.
size_t cuda_sim_check(void);
/// Number of reports of one kind.
size_t cuda_sim_check_kind(int kind);
/// Text of a report, valid until the next reset; NULL past the end.
const char* cuda_sim_report(size_t index);
int cuda_sim_report_kind_of(size_t index);
/// Forgets the reports (a test that expects one).
void cuda_sim_clear_reports(void);
/// Reports what lives and was made since the last reset; returns how many.
size_t cuda_sim_report_leaks(void);
/// Each report also goes to stderr at once.
void cuda_sim_set_verbose(int verbose);

//
// Back door and annotations
//

/// Copies between the host and device memory outside any stream, unseen by
/// counters and by race detection. Return 0, or -1 for a bad range.
int cuda_sim_read_device(const void* device, void* host, size_t bytes);
int cuda_sim_write_device(void* device, const void* host, size_t bytes);
/// 1 when all bytes, device or host, hold the poison pattern.
int cuda_sim_is_poison(const void* ptr, size_t bytes);
/// Fills host bytes with the poison pattern.
void cuda_sim_poison_host(void* ptr, size_t bytes);
/// Tells the race detector that the host touches these host bytes now.
void cuda_sim_host_access(const void* ptr, size_t bytes, int is_write);

#ifdef __cplusplus
}
#endif

#endif

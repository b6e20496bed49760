#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

// What only GPUs of compute capability 9.0 have, as the PTX that it is: tiles
// of matrices that are copied to shared memory in the background, barriers that
// count their bytes, and products of such tiles by the tensor cores, by four
// warps together. (A library of templates for these would be many times the
// code that is used of it.)

namespace faiss_ext {
namespace gpu {
namespace hopper {

/// Threads that multiply together.
constexpr int kWarpgroup = 128;

/// A row of a tile: 64 float16 numbers, 128 bytes, whose pieces of 16 bytes are
/// swapped by their row ("128 byte swizzle"), so that no reader finds two of
/// them in the same banks. Tiles begin at multiples of kTileAlignment.
constexpr int kTileWidth = 64;
constexpr int kTileRowBytes = kTileWidth * 2;
constexpr int kTileAlignment = 1024;

/// Of a product: rows of its first tile, and of its second, and components
/// that one instruction takes.
constexpr int kProductRows = 64;
constexpr int kProductColumns = 256;
constexpr int kProductStep = 16;
/// Sums that each thread of a warpgroup holds of a product. Thread t has, of
/// rows 16 (t / 32) + t % 32 / 4 and 8 more, columns 8 j + 2 (t % 4) and the
/// next: sums 4 j, 4 j + 1, and 4 j + 2, 4 j + 3.
constexpr int kSums = kProductRows * kProductColumns / kWarpgroup;

__device__ inline uint32_t sharedAddress(const void* place) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(place));
}

/// In shared memory: completes a phase when all that it expects has arrived,
/// threads and bytes, and begins the next one.
struct Barrier {
    uint64_t state;

    __device__ void initialise(uint32_t arrivals) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                     :
                     : "r"(sharedAddress(&state)), "r"(arrivals)
                     : "memory");
    }

    __device__ void arrive() {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
                     :
                     : "r"(sharedAddress(&state))
                     : "memory");
    }

    /// Arrives, and expects so many bytes before the phase is complete.
    __device__ void arriveExpecting(uint32_t bytes) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                     :
                     : "r"(sharedAddress(&state)), "r"(bytes)
                     : "memory");
    }

    /// Waits until phase 0, 2, ... (0), or 1, 3, ... (1) is complete; before
    /// the first one is, the one before it counts as complete.
    __device__ void wait(uint32_t phase) {
        asm volatile(
                "{\n"
                ".reg .pred done;\n"
                "again:\n"
                "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                "@done bra over;\n"
                "bra again;\n"
                "over:\n"
                "}\n"
                :
                : "r"(sharedAddress(&state)), "r"(phase)
                : "memory");
    }
};

/// After the barriers are initialised, before the block's threads wait for each
/// other.
__device__ inline void fenceBarriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void prefetchMap(const CUtensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" : : "l"(map) : "memory");
}

/// Copies a tile, of components from `component` on and rows from `row` on,
/// zeros where the matrix has none. Its bytes arrive at the barrier, those
/// zeros too.
__device__ inline void copyTile(
        void* tile,
        const CUtensorMap* matrix,
        int component,
        int row,
        Barrier* barrier) {
    asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::"
            "complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
            :
            : "r"(sharedAddress(tile)),
              "l"(matrix),
              "r"(component),
              "r"(row),
              "r"(sharedAddress(&barrier->state))
            : "memory");
}

/// How the tensor cores find a tile: its address, the distance of groups of
/// eight rows, and how their pieces are swapped. What is added to the address
/// moves along the rows.
__device__ inline uint64_t tileDescriptor(const void* tile) {
    constexpr uint64_t kGroupBytes = 8 * kTileRowBytes;
    constexpr uint64_t kSwizzle128 = 1;
    return (sharedAddress(tile) & 0x3ffff) >> 4 | uint64_t(1) << 16 |
           (kGroupBytes >> 4) << 32 | kSwizzle128 << 62;
}

/// The same, `steps` instructions further.
__device__ inline uint64_t furtherBy(uint64_t descriptor, int steps) {
    return descriptor + steps * (kProductStep * 2 >> 4);
}

/// Before the first product of several: what threads have done to the sums is
/// done.
__device__ inline void beginProducts() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/// Ends a set of products, which are counted by these.
__device__ inline void endProducts() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Waits until all but the last `sets` of the sets are done.
template <int sets>
__device__ inline void waitForProducts() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(sets) : "memory");
}

/// Adds the product of two tiles, kProductStep components of them, to the sums,
/// or puts it in their place. Not done when it returns.
__device__ inline void multiplyTiles(
        float (&sums)[kSums], uint64_t first, uint64_t second, bool add) {
    asm volatile(
            "{\n"
            ".reg .pred adds;\n"
            "setp.ne.b32 adds, %130, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 "
            "{%0, %1, %2, %3, %4, %5, %6, %7, "
            " %8, %9, %10, %11, %12, %13, %14, %15, "
            " %16, %17, %18, %19, %20, %21, %22, %23, "
            " %24, %25, %26, %27, %28, %29, %30, %31, "
            " %32, %33, %34, %35, %36, %37, %38, %39, "
            " %40, %41, %42, %43, %44, %45, %46, %47, "
            " %48, %49, %50, %51, %52, %53, %54, %55, "
            " %56, %57, %58, %59, %60, %61, %62, %63, "
            " %64, %65, %66, %67, %68, %69, %70, %71, "
            " %72, %73, %74, %75, %76, %77, %78, %79, "
            " %80, %81, %82, %83, %84, %85, %86, %87, "
            " %88, %89, %90, %91, %92, %93, %94, %95, "
            " %96, %97, %98, %99, %100, %101, %102, %103, "
            " %104, %105, %106, %107, %108, %109, %110, %111, "
            " %112, %113, %114, %115, %116, %117, %118, %119, "
            " %120, %121, %122, %123, %124, %125, %126, %127}, "
            "%128, %129, adds, 1, 1, 0, 0;\n"
            "}\n"
            : "+f"(sums[0]),
              "+f"(sums[1]),
              "+f"(sums[2]),
              "+f"(sums[3]),
              "+f"(sums[4]),
              "+f"(sums[5]),
              "+f"(sums[6]),
              "+f"(sums[7]),
              "+f"(sums[8]),
              "+f"(sums[9]),
              "+f"(sums[10]),
              "+f"(sums[11]),
              "+f"(sums[12]),
              "+f"(sums[13]),
              "+f"(sums[14]),
              "+f"(sums[15]),
              "+f"(sums[16]),
              "+f"(sums[17]),
              "+f"(sums[18]),
              "+f"(sums[19]),
              "+f"(sums[20]),
              "+f"(sums[21]),
              "+f"(sums[22]),
              "+f"(sums[23]),
              "+f"(sums[24]),
              "+f"(sums[25]),
              "+f"(sums[26]),
              "+f"(sums[27]),
              "+f"(sums[28]),
              "+f"(sums[29]),
              "+f"(sums[30]),
              "+f"(sums[31]),
              "+f"(sums[32]),
              "+f"(sums[33]),
              "+f"(sums[34]),
              "+f"(sums[35]),
              "+f"(sums[36]),
              "+f"(sums[37]),
              "+f"(sums[38]),
              "+f"(sums[39]),
              "+f"(sums[40]),
              "+f"(sums[41]),
              "+f"(sums[42]),
              "+f"(sums[43]),
              "+f"(sums[44]),
              "+f"(sums[45]),
              "+f"(sums[46]),
              "+f"(sums[47]),
              "+f"(sums[48]),
              "+f"(sums[49]),
              "+f"(sums[50]),
              "+f"(sums[51]),
              "+f"(sums[52]),
              "+f"(sums[53]),
              "+f"(sums[54]),
              "+f"(sums[55]),
              "+f"(sums[56]),
              "+f"(sums[57]),
              "+f"(sums[58]),
              "+f"(sums[59]),
              "+f"(sums[60]),
              "+f"(sums[61]),
              "+f"(sums[62]),
              "+f"(sums[63]),
              "+f"(sums[64]),
              "+f"(sums[65]),
              "+f"(sums[66]),
              "+f"(sums[67]),
              "+f"(sums[68]),
              "+f"(sums[69]),
              "+f"(sums[70]),
              "+f"(sums[71]),
              "+f"(sums[72]),
              "+f"(sums[73]),
              "+f"(sums[74]),
              "+f"(sums[75]),
              "+f"(sums[76]),
              "+f"(sums[77]),
              "+f"(sums[78]),
              "+f"(sums[79]),
              "+f"(sums[80]),
              "+f"(sums[81]),
              "+f"(sums[82]),
              "+f"(sums[83]),
              "+f"(sums[84]),
              "+f"(sums[85]),
              "+f"(sums[86]),
              "+f"(sums[87]),
              "+f"(sums[88]),
              "+f"(sums[89]),
              "+f"(sums[90]),
              "+f"(sums[91]),
              "+f"(sums[92]),
              "+f"(sums[93]),
              "+f"(sums[94]),
              "+f"(sums[95]),
              "+f"(sums[96]),
              "+f"(sums[97]),
              "+f"(sums[98]),
              "+f"(sums[99]),
              "+f"(sums[100]),
              "+f"(sums[101]),
              "+f"(sums[102]),
              "+f"(sums[103]),
              "+f"(sums[104]),
              "+f"(sums[105]),
              "+f"(sums[106]),
              "+f"(sums[107]),
              "+f"(sums[108]),
              "+f"(sums[109]),
              "+f"(sums[110]),
              "+f"(sums[111]),
              "+f"(sums[112]),
              "+f"(sums[113]),
              "+f"(sums[114]),
              "+f"(sums[115]),
              "+f"(sums[116]),
              "+f"(sums[117]),
              "+f"(sums[118]),
              "+f"(sums[119]),
              "+f"(sums[120]),
              "+f"(sums[121]),
              "+f"(sums[122]),
              "+f"(sums[123]),
              "+f"(sums[124]),
              "+f"(sums[125]),
              "+f"(sums[126]),
              "+f"(sums[127])
            : "l"(first), "l"(second), "r"(int(add)));
}

/// Numbers of the block's barriers that are used here: 0 is __syncthreads()'s.
constexpr int kTurnBarrier = 1; // and the next
constexpr int kBlockBarrier = 3;

/// Two warpgroups take turns. Waits for the turn of one of them, 0 or 1.
__device__ inline void waitForTurn(int group) {
    asm volatile("bar.sync %0, %1;"
                 :
                 : "r"(kTurnBarrier + group), "n"(2 * kWarpgroup)
                 : "memory");
}

/// The other one says that it is.
__device__ inline void giveTurn(int group) {
    asm volatile("bar.arrive %0, %1;"
                 :
                 : "r"(kTurnBarrier + group), "n"(2 * kWarpgroup)
                 : "memory");
}

/// All `threads` of a block wait for each other, each at any place of the
/// program: __syncthreads() is for one place that all of them come to.
template <int threads>
__device__ inline void waitForBlock() {
    asm volatile("barrier.sync %0, %1;"
                 :
                 : "n"(kBlockBarrier), "n"(threads)
                 : "memory");
}

/// No reader of the sums goes before this, nor a writer behind it.
__device__ inline void holdSums(float (&sums)[kSums]) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
        asm volatile("" : "+f"(sums[i])::"memory");
    }
}

/// Registers of each thread of a warpgroup from here on: fewer, or more once
/// others have given theirs.
template <int registers>
__device__ inline void keepRegisters() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(registers));
}
template <int registers>
__device__ inline void takeRegisters() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(registers));
}

} // namespace hopper
} // namespace gpu
} // namespace faiss_ext

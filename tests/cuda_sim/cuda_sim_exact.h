// What a test may ask of the stand-ins for the kernels of the exact search
// (kernels/exact.cpp): mistakes that a search must survive, and one that its
// self-test must find. cuda_sim_reset leaves these as they are.

#ifndef CUDA_SIM_EXACT_H
#define CUDA_SIM_EXACT_H

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_sim_exact_faults {
    /// So many vectors of each chunk pass the filter of each query though they
    /// need not.
    int extra_survivors;
    /// Lists run over: 1, the first time that a chunk is filtered; 2, always.
    /// (Where the chunk has as many vectors as a list has room for.)
    int overflow;
    /// 1: the first cut is smaller than what is proven, so that neighbours are
    /// missed and no certificate is given.
    int small_cuts;
    /// Of each score, up or down: a part of the largest error that Hopper's
    /// tensor cores are known for, without the factor that searches allow for.
    double score_error;
};

/// For what is enqueued from now on; a null pointer: none.
void cuda_sim_set_exact_faults(const struct cuda_sim_exact_faults* faults);

#ifdef __cplusplus
}
#endif

#endif

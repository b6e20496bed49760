// What a test may ask of the stand-ins for the kernels of the exact search
// (kernels/exact*.cpp): mistakes that a search must survive, and one that its
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
    /// Lists run over: 1, but for the second round of filtering; 2, always.
    /// (Where a chunk has more vectors than a list has room for.) Those of a
    /// scan: with either.
    int overflow;
    /// 1: the first cut is smaller than what is proven, so that neighbours are
    /// missed and no certificate is given.
    int small_cuts;
    /// 1: a cut that is guessed from those selected so far is far too small, so
    /// that nothing passes it, and no certificate is given for it.
    int small_guesses;
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

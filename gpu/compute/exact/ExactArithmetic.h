#pragma once

#include <faiss_ext/gpu/compute/exact/Distance.h>
#include <faiss_ext/gpu/compute/exact/HalfRows.h>
#include <faiss_ext/gpu/compute/exact/Margin.h>
#include <faiss_ext/gpu/compute/exact/Order.h>
#include <faiss_ext/gpu/compute/exact/SelfTest.h>
#include <faiss_ext/gpu/compute/exact/TensorArithmetic.h>

// The arithmetic of the exact search: what is promised (D and the order), and
// how scores in half precision prove that a vector is not among the k nearest.
// No CUDA runtime, no Faiss. docs/exact-search.md has the promise and the
// proofs. The kernels, and what each of them takes from here:
//
// Once for a GPU
//   selfTestComponent() of kSelfTestRows queries and vectors, their product by
//   the same call as the scores', selfTestPasses() (or the same bound) of each
//   score. If one fails nothing here holds on that GPU.
// Once for the vectors, and again after every change of them
//   1. Rows by the bin of their largest component (exponentBin), a histogram
//      of kExponentBins; and whether every component is a float16 number
//      already (toFloat(toHalf(y)) == y). If so, and always for float16
//      stores: no centre, scale 0, the copy of a float16 store is the store.
//   2. Else the centre: the mean, float32, of the rows with inMean(bin,
//      lastMeanBin(histogram)); if centreNorm() of it is above 2^62 or it is
//      not finite, none.
//   3. The histogram again, of subtract(y, m); scaleOfRows() is the scale.
//   4. halfOf() of each component into RowSums (parts of a row: addPart),
//      vectorTerms() of the row: these 8 bytes, and the centre, are kept.
//   5. indexTerms(), on the host or by one thread.
// For each search
//   Chunks take rows from all over the store (every 64th, say): of rows in the
//   order of the store that are sorted by content the first chunks' cuts are
//   worth nothing, and lists run over (benchs/filter_rates.py).
//   Copies of a chunk: halfOf(), as in 4. Nothing need be set to zero: rows out
//   of range pass whatever their score is.
//   Queries: the largest component (for L2 of subtract(x, m)), its bin's
//   scaleOfBin(), halfOf() with queryCentre(), QuerySums, queryTerms().
//   Scores: the product of the copies, float16 in, float32 accumulated and
//   out, alpha 1, beta 0; d may be filled up with zeros.
//   Filter: thresholdBase() of the query's cut, once. Then for each tile of
//   vectors the largest errorRest(), fineThreshold(); for each vector its
//   VectorBounds' norm and fineStart(startOf()); and for each score
//   passes(fineValue(...), threshold). Where all norms are alike, a threshold
//   of the base and the spread of the tile's VectorBounds would do, against
//   valueOf(): one multiply-add a score less. Tests and benchmarks compare.
//   The cut: lossOf(metric, D) of the k-th best of any k or more vectors. At
//   first, from scores of the first chunk alone, the k-th smallest mostLoss();
//   after each chunk D of the k-th best so far, which with what passes next
//   are all that a list must hold.
//   Smaller cuts that were guessed are allowed: then certified() may say no.
//   Re-rank: addDimension(), joinChains(), joinGroups(); resultKey() of each,
//   the k smallest; certified(loss of the k-th key, least cut used); labelOf()
//   and distanceOf() of the keys are the results.
//   Last path: the same keys of all vectors. For queries that have no
//   certificate or whole list in the end, and those that are not inRange.

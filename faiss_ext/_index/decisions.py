"""What has been decided about Faiss' methods and functions, of every version from
1.7.3 to 1.15: one table, by which our classes and functions are made.

What takes arrays is in `METHODS` or `FUNCTIONS`, with all that is to be known of
its arguments; what returns or copies indexes is in `INDEX_FUNCTIONS`; the rest of
Faiss' Python code, and of what it has for GPUs, is Faiss' own on purpose
(`FAISS_OWN` and below). A name that a new Faiss brings is in none of them: it stays
Faiss' own, and a test fails until somebody has thought about it.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from typing import Any, NamedTuple


class Arrays(NamedTuple):
    """A method or function of Faiss that takes arrays."""

    #: Arguments that are matrices of vectors with equally many columns.
    matrices: tuple[str, ...] = ()
    #: Outputs that a caller may give: their dtypes, and extents where these follow
    #: from the call: n rows of the argument `rows` (or as `n` says), k neighbours,
    #: d dimensions, m vectors in a row.
    outputs: Mapping[str, tuple[str, str | None]] = types.MappingProxyType({})
    #: Arguments that are ids, each of which is looked at.
    ids: tuple[str, ...] = ()
    #: The argument that has a row for each row of the outputs.
    rows: str = "x"
    #: The attribute of the object that says how many columns its matrices have,
    #: where it is not that of all methods.
    columns: str = ""
    #: Whether `cast` says what a GPU index converts. Host memory always is, as in
    #: Faiss.
    cast: bool = False
    #: Whether Faiss has pointers alone, and the method for arrays is in `host`.
    ours: bool = False
    #: The function that does the same with arrays on a GPU.
    gpu: str = ""
    #: Whether `metric` may be cosine similarity.
    cosine: bool = False


class IndexFunction(NamedTuple):
    """A function of Faiss that returns or copies indexes and the like."""

    #: Whether what it returns becomes an object of our class.
    makes: bool = True
    #: Whether it gives its argument, or a part of it, under another type.
    borrows: bool = False
    #: Whether it takes None for no index, though it needs one.
    refuses_none: bool = False
    #: Whether it copies an index on the CPU, and its error should say so.
    copies: bool = False


def _names(text: str) -> set[str]:
    return set(text.split())


_X = ("x",)
_D, _I = ("float32", "nk"), ("int64", "nk")

#: Methods, by name; `Class.method` comes before the name alone.
METHODS: dict[str, Arrays] = {
    # Indexes
    "add": Arrays(_X, cast=True),
    "add_with_ids": Arrays(_X, ids=("ids",), cast=True),
    "train": Arrays(_X, cast=True),
    "search": Arrays(_X, {"D": _D, "I": _I}, cast=True),
    "assign": Arrays(_X, {"labels": _I}, cast=True),
    "range_search": Arrays(_X),
    "range_search_preassigned": Arrays(_X),
    "search_and_reconstruct": Arrays(
        _X, {"D": _D, "I": _I, "R": ("float32", "nkd")}, cast=True
    ),
    "search_and_return_codes": Arrays(
        _X, {"D": _D, "I": _I, "codes": ("uint8", None)}
    ),
    "search_preassigned": Arrays(_X, {"D": _D, "I": _I}),
    "reconstruct": Arrays(outputs={"x": ("float32", "d")}, ids=("key",)),
    "reconstruct_n": Arrays(outputs={"x": ("float32", "md")}),
    "reconstruct_batch": Arrays(
        outputs={"x": ("float32", "nd")}, ids=("key",), rows="key"
    ),
    "Index.compute_residual": Arrays(
        outputs={"residual": ("float32", "d")}, ids=("key",), cast=True, ours=True
    ),
    "Index.compute_residual_n": Arrays(
        outputs={"residuals": ("float32", "nd")}, cast=True, ours=True
    ),
    "remove_ids": Arrays(ids=_X),
    "update_vectors": Arrays(_X, ids=("keys",)),
    "sa_encode": Arrays(_X, {"codes": ("uint8", None)}),
    "sa_decode": Arrays(outputs={"x": ("float32", None)}),
    "add_sa_codes": Arrays(),
    "build": Arrays(),
    "permute_entries": Arrays(),
    "train_inplace": Arrays(),
    # Transforms, quantizers, clustering
    "apply": Arrays(_X),
    "apply_py": Arrays(),
    "reverse_transform": Arrays(_X, columns="d_out"),
    "compute_codes": Arrays(_X),
    "decode": Arrays(),
    "train_encoded": Arrays(),
    "train_exact": Arrays(_X),
    "pack_1": Arrays(),
    "unpack_1": Arrays(),
    # Results, ids, tuning
    "IDSelectorArray.__init__": Arrays(),
    "IDSelectorBatch.__init__": Arrays(),
    "IDSelectorBitmap.__init__": Arrays(),
    "MatrixStats.__init__": Arrays(),
    "add_result": Arrays(),
    "add_result_subset": Arrays(),
    "evaluate": Arrays(),
    "explore": Arrays(),
    "insert": Arrays(),
    "lookup": Arrays(),
    "search_multiple": Arrays(),
    "set_groundtruth": Arrays(),
}

#: Functions.
FUNCTIONS: dict[str, Arrays] = {
    "bucket_sort": Arrays(),
    "checksum": Arrays(),
    "eval_intersection": Arrays(),
    "kmax": Arrays(),
    "kmin": Arrays(),
    "knn": Arrays(("xq", "xb"), gpu="knn_gpu", cosine=True),
    "knn_hamming": Arrays(),
    "matrix_bucket_sort_inplace": Arrays(),
    "merge_knn_results": Arrays(),
    "normalize_L2": Arrays(outputs={"x": ("float32", None)}),
    "pack_bitstrings": Arrays(),
    "pairwise_distances": Arrays(("xq", "xb"), gpu="pairwise_distance_gpu"),
    "range_search_with_parameters": Arrays(),
    "search_with_parameters": Arrays(),
    "unpack_bitstrings": Arrays(),
}

#: Functions of indexes and the like.
INDEX_FUNCTIONS: dict[str, IndexFunction] = {
    "clone_Quantizer": IndexFunction(),
    "clone_binary_index": IndexFunction(copies=True),
    "clone_index": IndexFunction(copies=True),
    "deserialize_index": IndexFunction(),
    "deserialize_index_binary": IndexFunction(),
    "downcast_AdditiveQuantizer": IndexFunction(borrows=True),
    "downcast_IndexBinary": IndexFunction(borrows=True),
    "downcast_Quantizer": IndexFunction(borrows=True),
    "downcast_VectorTransform": IndexFunction(borrows=True),
    "downcast_index": IndexFunction(borrows=True),
    "extract_index_ivf": IndexFunction(borrows=True, refuses_none=True),
    "index_binary_factory": IndexFunction(),
    "index_binary_gpu_to_cpu": IndexFunction(refuses_none=True),
    "index_factory": IndexFunction(),
    "index_gpu_to_cpu": IndexFunction(refuses_none=True),
    "read_ProductQuantizer": IndexFunction(),
    "read_VectorTransform": IndexFunction(),
    "read_index": IndexFunction(),
    "read_index_binary": IndexFunction(),
    "serialize_index": IndexFunction(makes=False, copies=True),
    "serialize_index_binary": IndexFunction(makes=False, copies=True),
    "try_extract_index_ivf": IndexFunction(borrows=True),
}

#: Functions that work on a GPU with what they are told in a structure.
BRUTE_FORCE = {"bfKnn", "bfKnn_tiling"}

#: Classes without array methods that have one of ours all the same: it keeps
#: alive what is put in, and checks numbers of GPUs.
CLASSES_WITHOUT_ARRAYS = {"GpuResourcesVector", "StandardGpuResources"}

#: Python code of Faiss that stays its own: methods of no array, and functions.
FAISS_OWN = _names("""
    __init__ __getstate__ __setstate__ __setattr__ __enter__ __exit__ addIndex
    add_shard prepend_transform replace_vt read_bytes write_bytes from_array
    from_torch numpy finalize reset set_index AlignedTable_to_array
    array_to_AlignedTable copy_array_to_AlignedTable copy_array_to_vector
    vector_float_to_array vector_to_array add_ref_in_constructor add_ref_in_function
    add_ref_in_method add_ref_in_method_explicit_own add_to_referenced_objects lrand
    rand rand_smooth_vectors randint randn shard_ivf_index_centroids
    super_kmeans_assign_iteration supported_instruction_sets
""")

#: Classes for GPUs that are Faiss' own: what is told, and what is done without
#: arrays.
FAISS_OWN_GPU_CLASSES = _names("""
    GpuClonerOptions GpuMultipleClonerOptions GpuDistanceParams GpuIndexConfig
    GpuIndexFlatConfig GpuIndexIVFConfig GpuIndexIVFFlatConfig GpuIndexIVFPQConfig
    GpuIndexIVFScalarQuantizerConfig GpuIndexBinaryFlatConfig GpuResources
    GpuResourcesProvider GpuResourcesProviderFromInstance StandardGpuResourcesImpl
    GpuIcmEncoder GpuIcmEncoderFactory GpuProgressiveDimIndexFactory ToGpuCloner
    ToGpuClonerMultiple
""")

#: Functions for GPUs that are.
FAISS_OWN_GPU_FUNCTIONS = _names("""
    cast_integer_to_cudastream_t cast_cudastream_t_to_integer gpu_profiler_start
    gpu_profiler_stop gpu_sync_all_devices isGpuIndex isGpuIndexImplemented
    tryCastGpuIndex should_use_cuvs bruteForceKnn
""")

#: Members of classes of ours for GPUs that are.
FAISS_OWN_GPU_MEMBERS = _names("""
    d ntotal verbose is_trained metric_type metric_arg thisown code_size nlist nprobe
    quantizer own_fields quantizer_trains_alone clustering_index cp max_codes
    by_residual pq sq reset copyFrom copyTo getDevice getResources getMinPagingSize
    setMinPagingSize reserveMemory reclaimMemory getNumVecs getNumLists getNumProbes
    setNumProbes updateQuantizer getPrecomputedCodes setPrecomputedCodes
    getBitsPerCode getCentroidsPerSubQuantizer getNumSubQuantizers
    check_compatible_for_merge merge_from sa_code_size get_distance_computer
    noTempMemory setTempMemory setPinnedMemory setLogMemoryAllocations
    setDefaultNullStreamAllDevices getMemoryInfo supportsBFloat16
    supportsBFloat16CurrentDevice at clear data resize size swap batchsize
    parameter_ranges n_experiments min_test_duration thread_over_batches add_range
    combination_ge combination_name display initialize n_combinations
    set_index_parameter set_index_parameters update_bounds
""")

#: Those that take pointers of C. Faiss' Python code calls them, and so does ours.
#: (`x_c` beside a method `x` that is Python code needs no entry.)
FAISS_OWN_GPU_POINTERS = _names("""
    add_ex add_with_ids_ex search_ex train_ex train_with_queries add_core search1
    search_subset search_preassigned range_search_preassigned assign reconstruct_n
    search_and_reconstruct add_sa_codes getGpuData getListIndices getListLength
    getListVectorData coarse_code_size decode_listno encode_listno train_q1
""")

#: The modules of Faiss whose methods are Python code for arrays. (Not
#: `faiss.contrib.torch_utils`, which puts its own in their places.)
_PYTHON_CODE = {"faiss.class_wrappers", "faiss.extra_wrappers"}


def arrays_of(stock: type, name: str) -> Arrays | None:
    """What is decided about a member of a class of Faiss: an array method, or
    None for one that stays Faiss' own."""
    # `contrib.torch_utils` keeps Faiss' methods under such names.
    name, member = name.removesuffix("_numpy"), vars(stock)[name]
    arrays = METHODS.get(f"{stock.__name__}.{name}", METHODS.get(name))
    return arrays if arrays and (arrays.ours or is_python_code(member)) else None


def is_python_code(member: Any) -> bool:
    """Whether a method is Python code of Faiss, and not SWIG's for pointers."""
    return inspect.isfunction(member) and member.__module__ in _PYTHON_CODE

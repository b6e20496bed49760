# Finds CUDA and Faiss, or says in one line what is missing and what fixes it.

find_package(CUDAToolkit 12 QUIET)
if(NOT CUDAToolkit_FOUND)
  message(FATAL_ERROR
    " faiss_ext found no CUDA toolkit, 12 or newer. Fix: put its bin folder on PATH, or set CUDAToolkit_ROOT")
endif()
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  set(CMAKE_CUDA_COMPILER "${CUDAToolkit_NVCC_EXECUTABLE}")
endif()

set(faiss_fix
  "Fix: set FAISS_EXT_FAISS_HEADERS to Faiss' sources of the version of the installed wheel faiss-gpu; or set CMAKE_PREFIX_PATH to the folder that a GPU Faiss is installed in; or, for the Python package without its native part, `pip install . --config-settings=wheel.cmake=false`")
include(FaissExtFaissWheel)
faiss_ext_wheel_asked_for(FAISS_EXT_BESIDE_WHEEL)
if(FAISS_EXT_BESIDE_WHEEL)
  faiss_ext_faiss_of_wheel()
else()
  find_package(faiss QUIET)
endif()
if(NOT faiss_FOUND)
  message(FATAL_ERROR " faiss_ext found no Faiss (faiss-config.cmake). ${faiss_fix}")
endif()
get_target_property(faiss_type faiss TYPE)
if(NOT faiss_type STREQUAL "SHARED_LIBRARY")
  message(FATAL_ERROR
    " faiss_ext: the Faiss in ${faiss_DIR} is a static library, of which its Python module has a copy of its own. Fix: build it with BUILD_SHARED_LIBS=ON")
endif()
get_target_property(faiss_include_dirs faiss INTERFACE_INCLUDE_DIRECTORIES)
find_file(faiss_gpu_header faiss/gpu/GpuIndexFlat.h
  PATHS ${faiss_include_dirs} NO_DEFAULT_PATH NO_CACHE)
if(NOT faiss_gpu_header)
  message(FATAL_ERROR " faiss_ext: the Faiss in ${faiss_DIR} was built without GPU support. ${faiss_fix}")
endif()

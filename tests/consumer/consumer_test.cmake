# Installs the project into an empty folder, builds tests/consumer against it
# and runs it on the simulator.
#
#   cmake -D BUILD=... -D SOURCE=... -D WORK=... -D PREFIX_PATH=... -D SIM=...
#         -D CUDA=... -D WHEEL=... -D HEADERS=... -D PYTHON=...
#         -D GENERATOR=... -D COMPILER=... -P consumer_test.cmake
#
# WHEEL and HEADERS are empty where Faiss has a configuration of its own.

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status
    OUTPUT_VARIABLE output ERROR_VARIABLE output)
  message("${output}")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "failed (${status}): ${ARGN}")
  endif()
endfunction()

file(REMOVE_RECURSE "${WORK}")
run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${WORK}/prefix")
if(EXISTS "${WORK}/prefix/faiss_ext")
  message(FATAL_ERROR "the Python package's files are installed with the C++ library")
endif()
if(NOT EXISTS "${WORK}/prefix/share/doc/faiss_ext/LICENSE")
  message(FATAL_ERROR "the licence is not installed")
endif()
run("${CMAKE_COMMAND}" -S "${SOURCE}" -B "${WORK}/build" -G "${GENERATOR}"
  -D "CMAKE_CXX_COMPILER=${COMPILER}"
  -D "CMAKE_PREFIX_PATH=${WORK}/prefix" -D "faiss_ROOT=${PREFIX_PATH}"
  -D "CUDAToolkit_ROOT=${CUDA}" -D "Python_EXECUTABLE=${PYTHON}"
  -D "FAISS_EXT_FAISS_WHEEL=${WHEEL}" -D "FAISS_EXT_FAISS_HEADERS=${HEADERS}")
run("${CMAKE_COMMAND}" --build "${WORK}/build")
run("${CMAKE_COMMAND}" -E env "LD_LIBRARY_PATH=${SIM}"
  "LD_PRELOAD=${SIM}/libcuda_sim_faiss.so" "${WORK}/build/consumer")

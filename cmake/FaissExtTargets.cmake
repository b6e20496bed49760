# What every target of this project is compiled with. No flag is set globally.

# Faiss below 1.10 has C++11 headers, which C++17 compiles; later ones need 20.
function(faiss_ext_compile_options target)
  if(faiss_VERSION VERSION_LESS 1.10)
    target_compile_features(${target} PUBLIC cxx_std_17)
  else()
    target_compile_features(${target} PUBLIC cxx_std_20)
  endif()
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra
    $<$<BOOL:${FAISS_EXT_WERROR}>:-Werror>)
endfunction()

# Faiss' headers do not compile clean under -Wextra; theirs are not ours to fix.
function(faiss_ext_use_faiss target scope)
  target_link_libraries(${target} ${scope} faiss CUDA::cudart)
  get_target_property(dirs faiss INTERFACE_INCLUDE_DIRECTORIES)
  target_include_directories(${target} SYSTEM ${scope} ${dirs})
endfunction()
